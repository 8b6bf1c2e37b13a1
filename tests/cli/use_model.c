/// Uses a model through its generated header, as a user's program would: what is a times b, how long is (a, b)?
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "answer.h"

int main(int argc, char **argv)
{
    pm_model *model;
    pm_session *session;
    const float x[2][4] = {{0, 1, 6, 7}, {1, 0, 3, 4}};
    float y[2] = {0};
    if (answer_open(&model) != PM_OK || pm_session_create(model, NULL, &session) != PM_OK ||
        answer_main(session, 2, &x[0][0], y) != PM_OK) {
        fprintf(stderr, "error: %s\n", pm_last_error());
        return 1;
    }
    int twice = answer_main(session, 2, &x[0][0], y) != PM_OK;
    pm_session_destroy(session);
    pm_model_close(model);
    printf("%g %.1f\n", (double)y[0], (double)y[1]);
    return twice || argc > 2 || !argv[0] || y[0] != 42 || fabsf(y[1] - 5) > 0.2f;
}
