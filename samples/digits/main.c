/* Reads handwriting of a sort: samples.txt holds, per line, a digit and its picture of 8x8 points in
 * levels 0 to f. Prints how many the compiled model reads right.
 * usage: digits samples.txt */
#include <stdio.h>
#include <string.h>

#include "digits.h"

enum { POINTS = 64, DIGITS = 10, BATCH = 32 };

typedef struct batch {
    int n;
    int labels[BATCH];
    float pixels[BATCH * POINTS], scores[BATCH * DIGITS];
} batch;

/* Up to BATCH lines. Returns 0, or -1 when a line is not a digit and 64 levels. */
static int read_batch(FILE *in, batch *b)
{
    int label;
    char levels[POINTS + 2]; /* one more than fits, to see that a line is too long */
    for (b->n = 0; b->n < BATCH; b->n++) {
        int found = fscanf(in, "%d %65s", &label, levels);
        if (found == EOF)
            return 0;
        if (found != 2 || label < 0 || label >= DIGITS || strlen(levels) != POINTS)
            return -1;
        b->labels[b->n] = label;
        for (int i = 0; i < POINTS; i++) {
            static const char hex[] = "0123456789abcdef";
            const char *level = strchr(hex, levels[i]);
            if (!level)
                return -1;
            b->pixels[b->n * POINTS + i] = (float)(level - hex) / 15.0f;
        }
    }
    return 0;
}

static int count_right(const batch *b)
{
    int right = 0;
    for (int k = 0; k < b->n; k++) {
        const float *scores = b->scores + k * DIGITS;
        int best = 0;
        for (int d = 1; d < DIGITS; d++)
            if (scores[d] > scores[best])
                best = d;
        right += best == b->labels[k];
    }
    return right;
}

int main(int argc, char **argv)
{
    static batch b;
    int right = 0, n = 0, result = 1;
    FILE *in = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (!in) {
        fprintf(stderr, "usage: digits samples.txt\n");
        return 2;
    }
    pm_model *model = NULL;
    pm_session *session = NULL;
    if (digits_open(&model) != PM_OK || pm_session_create(model, NULL, &session) != PM_OK) {
        fprintf(stderr, "%s\n", pm_last_error());
        goto done;
    }
    do {
        if (read_batch(in, &b) < 0) {
            fprintf(stderr, "%s:%d: not a digit and 64 levels\n", argv[1], n + b.n + 1);
            goto done;
        }
        /* The model's N is the number of pictures; arrays are read and written in place. */
        if (b.n > 0 && digits_main(session, b.n, b.pixels, b.scores) != PM_OK) {
            fprintf(stderr, "%s\n", pm_last_error());
            goto done;
        }
        right += count_right(&b);
        n += b.n;
    } while (b.n == BATCH);
    printf("%d of %d right, accuracy %.1f %%\n", right, n, n > 0 ? 100.0 * right / n : 0.0);
    result = 0;
done:
    pm_session_destroy(session);
    pm_model_close(model);
    fclose(in);
    return result;
}
