/* A CPython of one's own, with pysamp linked in and, at most, one mention of it. */

#include <Python.h>

#ifdef MENTION
#include "pysamp.h"
#endif

int main(int argc, char **argv)
{
#ifdef MENTION
    if (pysamp_version() == NULL)
        return 3;
#endif
    return Py_BytesMain(argc, argv);
}
