/* A program that embeds Python and profiles it: each mode prints what went wrong, if anything. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pysamp.h"

static int failures;

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            printf("line %d: %s (%s)\n", __LINE__, #condition, pysamp_last_error()); \
            failures++;                                                         \
        }                                                                       \
    } while (0)

/* Sleeps, so that what is in the profile does not hang on how busy the machine is. */
static void stay(const char *name, double seconds)
{
    char code[512];

    snprintf(code, sizeof code,
             "import time\n"
             "def %s():\n"
             "    end = time.monotonic() + %f\n"
             "    while time.monotonic() < end:\n"
             "        time.sleep(0.01)\n"
             "%s()\n",
             name, seconds, name);
    CHECK(PyRun_SimpleString(code) == 0);
}

static void *ask(void *path)
{
    int round;

    for (round = 0; round < 20; round++) {
        CHECK(pysamp_dump(path) == PYSAMP_OK);
        CHECK(pysamp_is_active());
    }
    return NULL;
}

/* Statuses, without any Python running. */
static void statuses(const char *options)
{
    CHECK(strchr(pysamp_version(), '.') != NULL);
    CHECK(strcmp(pysamp_strerror(PYSAMP_OK), "success") == 0);
    CHECK(strcmp(pysamp_strerror(12345), "unknown status") == 0);
    CHECK(strcmp(pysamp_last_error(), "") == 0);
    CHECK(!pysamp_is_active());
    CHECK(pysamp_stop() == PYSAMP_NOT_ACTIVE);
    CHECK(pysamp_dump(NULL) == PYSAMP_NOT_ACTIVE);
    CHECK(pysamp_start("0") == PYSAMP_INVALID_OPTIONS);
    CHECK(pysamp_start("outptu=x") == PYSAMP_INVALID_OPTIONS);
    CHECK(strstr(pysamp_last_error(), "did you mean 'output'?") != NULL);
    CHECK(pysamp_start("output=/nowhere/at/all") == PYSAMP_OUTPUT_FAILED);
    CHECK(!pysamp_is_active());
    CHECK(pysamp_start(options) == PYSAMP_OK);
    CHECK(pysamp_is_active());
    CHECK(pysamp_start(NULL) == PYSAMP_ALREADY_ACTIVE);
    CHECK(pysamp_dump(NULL) == PYSAMP_NO_PYTHON);
    CHECK(pysamp_stop() == PYSAMP_NO_PYTHON);
    CHECK(pysamp_stop() == PYSAMP_NOT_ACTIVE);
    CHECK(!pysamp_is_active());
}

/* One profile through three lives of the interpreter. */
static void lives(const char *options, const char *dump)
{
    pthread_t other;

    CHECK(pysamp_start(options) == PYSAMP_OK);

    Py_Initialize();
    stay("first_life", 0.3);
    CHECK(pysamp_dump(dump) == PYSAMP_OK);
    CHECK(pysamp_dump("/nowhere/at/all") == PYSAMP_OUTPUT_FAILED);
    CHECK(pysamp_is_active());
    Py_Finalize();
    usleep(50000);
    CHECK(pysamp_is_active());

    Py_Initialize();
    stay("second_life", 0.3);
    Py_Finalize();

    Py_Initialize();
    /* Two threads that dump at once, neither of which has the GIL. */
    PyThreadState *saved = PyEval_SaveThread();
    CHECK(pthread_create(&other, NULL, ask, (void *)dump) == 0);
    ask((void *)dump);
    CHECK(pthread_join(other, NULL) == 0);
    PyEval_RestoreThread(saved);
    stay("third_life", 0.3);
    Py_Finalize();

    CHECK(pysamp_stop() == PYSAMP_OK);
    CHECK(!pysamp_is_active());
    CHECK(pysamp_stop() == PYSAMP_NOT_ACTIVE);
}

/* A profile that begins and ends while an interpreter runs, and another that the exit writes. */
static void middle(const char *options, const char *other_options)
{
    Py_Initialize();
    stay("too_early", 0.1);
    CHECK(pysamp_start(options) == PYSAMP_OK);
    stay("in_time", 0.3);
    CHECK(pysamp_stop() == PYSAMP_OK);
    stay("too_late", 0.1);
    CHECK(pysamp_start(other_options) == PYSAMP_OK);
    stay("at_exit", 0.3);
    Py_Finalize();
}

/* A child that forks off has a profile of its own. */
static void forks(const char *options)
{
    int status = 1;
    pid_t child;

    Py_Initialize();
    CHECK(pysamp_start(options) == PYSAMP_OK);
    stay("parent", 0.2);
    PyOS_BeforeFork();
    child = fork();
    if (child == 0) {
        PyOS_AfterFork_Child();
        stay("child", 0.3);
        CHECK(pysamp_is_active());
        CHECK(pysamp_stop() == PYSAMP_OK);
        fflush(stdout);
        _exit(failures);
    }
    PyOS_AfterFork_Parent();
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(pysamp_stop() == PYSAMP_OK);
    Py_Finalize();
}

static int entries(const char *path)
{
    DIR *directory = opendir(path);
    int count = 0;

    while (directory != NULL && readdir(directory) != NULL)
        count++;
    if (directory != NULL)
        closedir(directory);
    return count;
}

/* Threads end a moment after those who wait for their work have gone on. */
static int threads(int wanted)
{
    int patience, count = 0;

    for (patience = 0; patience < 1000 && count != wanted; patience++) {
        count = entries("/proc/self/task");
        usleep(patience ? 1000 : 0);
    }
    return count;
}

static long memory_kb(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long total = 0, resident = 0;

    CHECK(file != NULL && fscanf(file, "%ld %ld", &total, &resident) == 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static const char *cycle_options;

static void *cycle(void *unused)
{
    int round;

    for (round = 0; round < 1000; round++) {
        pysamp_status started = pysamp_start(cycle_options);
        pysamp_status dumped = pysamp_dump(round % 2 ? NULL : "");
        pysamp_status stopped = pysamp_stop();
        CHECK(started == PYSAMP_OK || started == PYSAMP_ALREADY_ACTIVE);
        CHECK(dumped == PYSAMP_OK || dumped == PYSAMP_NOT_ACTIVE || dumped == PYSAMP_NO_PYTHON);
        CHECK(stopped == PYSAMP_OK || stopped == PYSAMP_NOT_ACTIVE || stopped == PYSAMP_NO_PYTHON);
    }
    return unused;
}

/* A thousand profiles one after the other, and four times as many calls from threads that do not
   know of each other, while Python runs, with and without the GIL. Nothing is left of them. */
static void cycles(const char *options)
{
    pthread_t others[3];
    /* The main thread, the runner, and the names of the directory itself and the one above. */
    const int tasks = 4;
    int round, index, files = 0;
    long memory = 0;

    cycle_options = options;
    Py_Initialize();
    CHECK(PyRun_SimpleString("import threading, time\n"
                             "going = True\n"
                             "def run():\n"
                             "    while going: time.sleep(0.0001)\n"
                             "runner = threading.Thread(target=run)\n"
                             "runner.start()\n") == 0);
    PyThreadState *saved = PyEval_SaveThread();
    for (round = 0; round < 1000; round++) {
        if (round == 100) {
            files = entries("/proc/self/fd");
            memory = memory_kb();
        }
        if (round % 10 == 0) {
            PyEval_RestoreThread(saved);
        }
        CHECK(pysamp_start(options) == PYSAMP_OK);
        usleep(round % 4 ? 0 : 2000);
        CHECK(pysamp_stop() == PYSAMP_OK);
        if (round % 10 == 0) {
            saved = PyEval_SaveThread();
        }
    }
    for (index = 0; index < 3; index++)
        CHECK(pthread_create(&others[index], NULL, cycle, NULL) == 0);
    PyEval_RestoreThread(saved);
    cycle(NULL);
    saved = PyEval_SaveThread();
    for (index = 0; index < 3; index++)
        CHECK(pthread_join(others[index], NULL) == 0);
    pysamp_stop();
    CHECK(!pysamp_is_active());
    CHECK(entries("/proc/self/fd") == files);
    CHECK(threads(tasks) == tasks);
    CHECK(memory_kb() < memory + 2048);
    printf("memory %ld kB, then %ld kB\n", memory, memory_kb());
    PyEval_RestoreThread(saved);
    CHECK(PyRun_SimpleString("going = False\nrunner.join()\n") == 0);
    Py_Finalize();
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";

    if (strcmp(mode, "statuses") == 0 && argc == 3)
        statuses(argv[2]);
    else if (strcmp(mode, "lives") == 0 && argc == 4)
        lives(argv[2], argv[3]);
    else if (strcmp(mode, "middle") == 0 && argc == 4)
        middle(argv[2], argv[3]);
    else if (strcmp(mode, "forks") == 0 && argc == 3)
        forks(argv[2]);
    else if (strcmp(mode, "cycles") == 0 && argc == 3)
        cycles(argv[2]);
    else
        return 2;
    return failures != 0;
}
