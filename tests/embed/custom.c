/* A CPython of one's own, with pysamp linked in and, at most, one mention of it. */

#include <Python.h>

#if defined(MENTION) || defined(HOSTED)
#include "pysamp.h"
#endif

#ifdef HOSTED
/* It reads a variable of its own in place of PYTHONSAMPLE. */
const char pysamp_hosted = 1;
#endif

int main(int argc, char **argv)
{
#ifdef MENTION
    if (pysamp_version() == NULL)
        return 3;
#endif
#ifdef HOSTED
    pysamp_start_as_asked(getenv("CUSTOM_SAMPLE"));
#endif
    return Py_BytesMain(argc, argv);
}
