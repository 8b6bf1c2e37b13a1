/* A program that embeds the compiled sample through the header that pimoec wrote beside the
 * library: embed_main N ID... writes the N tokens that greedily follow the given ones. */
#include <stdio.h>
#include <stdlib.h>

#include "classics.h"

enum { VOCAB = 2048, MAX_TOKENS = 64 };

int main(int argc, char **argv)
{
    static float logits[MAX_TOKENS * VOCAB];
    int64_t ids[MAX_TOKENS];
    int n = argc - 2, wanted = argc > 2 ? atoi(argv[1]) : 0;
    if (n < 1 || n + wanted > MAX_TOKENS)
        return 2;
    for (int i = 0; i < n; i++)
        ids[i] = atol(argv[2 + i]);
    pm_model *model = NULL;
    pm_session *session = NULL;
    pm_session_options options = {.struct_size = sizeof options, .threads = 2};
    if (classics_open(&model) != PM_OK || pm_session_create(model, &options, &session) != PM_OK) {
        fprintf(stderr, "%s\n", pm_last_error());
        return 1;
    }
    for (int end = n + wanted; n < end; n++) {
        if (classics_forward(session, 1, n, ids, logits) != PM_OK) {
            fprintf(stderr, "%s\n", pm_last_error());
            return 1;
        }
        const float *last = logits + (size_t)(n - 1) * VOCAB;
        ids[n] = 0;
        for (int64_t i = 1; i < VOCAB; i++)
            if (last[i] > last[ids[n]])
                ids[n] = i;
        printf("%s%ld", n == end - wanted ? "" : ", ", (long)ids[n]);
    }
    putchar('\n');
    pm_session_destroy(session);
    pm_model_close(model);
    return 0;
}
