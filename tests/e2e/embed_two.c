/* Two compiled libraries in one program, each with its weights within. */
#include <stdio.h>

#include "classics.h"
#include "twice.h"

int main(void)
{
    pm_model *classics = NULL, *twice = NULL;
    pm_session *session = NULL;
    float x[3] = {1, 2, -3}, y[3] = {0};
    if (classics_open(&classics) != PM_OK || twice_open(&twice) != PM_OK ||
        pm_session_create(twice, NULL, &session) != PM_OK ||
        twice_main(session, 3, x, y) != PM_OK) {
        fprintf(stderr, "%s\n", pm_last_error());
        return 1;
    }
    pm_session_destroy(session);
    pm_model_close(twice);
    pm_model_close(classics);
    return !(y[0] == 3 && y[1] == 5 && y[2] == -5);
}
