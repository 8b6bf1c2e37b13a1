// The generated header in C++: it compiles, and what it declares links and runs. Exits with 0 when
// scores of an empty picture are a distribution over the ten digits.
#include "digits.h"

#include <cstdio>

int main()
{
    pm_model *model = nullptr;
    pm_session *session = nullptr;
    if (digits_open(&model) != PM_OK || pm_session_create(model, nullptr, &session) != PM_OK) {
        std::fprintf(stderr, "%s\n", pm_last_error());
        return 1;
    }
    float pixels[64] = {}, scores[10] = {}, sum = 0;
    if (digits_main(session, 1, pixels, scores) != PM_OK) {
        std::fprintf(stderr, "%s\n", pm_last_error());
        return 1;
    }
    for (float score : scores)
        sum += score < 0 ? 2 : score;
    pm_session_destroy(session);
    pm_model_close(model);
    return sum > 0.9999F && sum < 1.0001F ? 0 : 1;
}
