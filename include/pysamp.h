/*
 * pysamp: a sampling profiler that lives inside the CPython process it profiles.
 *
 * Every function may be called from any thread, with or without the GIL, from before Py_Initialize
 * to after Py_Finalize, but not from a signal handler.
 *
 * Shared:   cc program.c -lpysamp $(python3-config --embed --ldflags)
 * Static:   cc program.c libpysamp.a $(python3-config --embed --ldflags) -lpthread -ldl -lm -lgcc_s
 *
 * A program that calls none of these functions can still be profiled with the environment variable
 * PYTHONSAMPLE, if the linker is told to keep the profiler: -Wl,-u,pysamp_version before
 * libpysamp.a, or -Wl,--no-as-needed before -lpysamp. libpysamp.a goes before the C library and
 * needs a shared one (not -static): it puts its own _exit before the C library's, so that the
 * profile is written when a process ends that way.
 */

#ifndef PYSAMP_H
#define PYSAMP_H

/* Made by cbindgen from src/ffi; see cbindgen.toml. */

#include <stdbool.h>

/**
 * What became of a call. The numbers never change; later versions may add some.
 */
typedef enum {
  /**
   * It did what it should.
   */
  PYSAMP_OK = 0,
  /**
   * The options cannot be understood, or switch profiling off.
   */
  PYSAMP_INVALID_OPTIONS = 1,
  /**
   * A profile is being taken already.
   */
  PYSAMP_ALREADY_ACTIVE = 2,
  /**
   * No profile is being taken, or no trampolines are active.
   */
  PYSAMP_NOT_ACTIVE = 3,
  /**
   * There is no CPython in this process, or it has run no code yet that could be in a profile.
   */
  PYSAMP_NO_PYTHON = 4,
  /**
   * The Python in this process is not one that can be profiled.
   */
  PYSAMP_UNSUPPORTED = 5,
  /**
   * The profile, or the file for `perf`, cannot be written where it should go.
   */
  PYSAMP_OUTPUT_FAILED = 6,
  /**
   * The sampling thread cannot be started.
   */
  PYSAMP_THREAD_FAILED = 7,
  /**
   * The sampling thread did not answer within a minute or is not there any more, or Python's main thread
   * has too much to do.
   */
  PYSAMP_TIMEOUT = 8,
  /**
   * A fault of pysamp's own.
   */
  PYSAMP_INTERNAL = 9,
  /**
   * Python's frames are evaluated by another tool already, such as CPython's own trampolines.
   */
  PYSAMP_HOOK_TAKEN = 10,
} pysamp_status;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Starts to sample.
 *
 * `options` are those of the environment variable `PYTHONSAMPLE`, such as
 * `"rate=5khz,format=collapsed,output=/tmp/p_%p.txt"`. `NULL`, `""`, `"1"` and `"on"` stand for
 * the defaults; `"0"` and `"off"` are invalid here. The variable itself is not looked at.
 *
 * May be called before `Py_Initialize`: sampling begins as soon as Python code runs. It goes on
 * through `Py_Finalize` and any later `Py_Initialize`, and ends with `pysamp_stop`, at the end of
 * the duration that the options may set, which writes the profile, or with the process, which
 * writes it as it exits.
 *
 * Prints nothing where it fails; `pysamp_last_error` tells more than the status.
 */
pysamp_status pysamp_start(const char *options);

/**
 * Starts to sample, or does not, as `PYTHONSAMPLE=value` would ask for; says in one line on stderr
 * why it cannot. Returns whether it has started a profile, which `pysamp_stop` ends.
 *
 * For a CPython that has pysamp built in and reads the variable by its own rules. It defines the
 * symbol `pysamp_hosted`, whatever that is, upon which the library does not look at the variable
 * when it is loaded. In a process with raised privileges this starts nothing, nor does it with
 * `NULL` or where a profile is being taken.
 */
bool pysamp_start_as_asked(const char *value);

/**
 * Stops sampling, writes the profile, and waits for that: a minute at most.
 *
 * Sampling is over whatever this returns, unless that is `PYSAMP_TIMEOUT`. `PYSAMP_NO_PYTHON`
 * says that no Python code has run, so that there is no profile. `pysamp_start` may follow.
 */
pysamp_status pysamp_stop(void);

/**
 * Writes the profile of what has been sampled so far, and goes on sampling. Waits for the file to
 * be there: a minute at most.
 *
 * `path` is the file to write, in the format that the options have chosen. With `NULL` or `""` the
 * profile goes where the options say: with `rotate`, `paused` or `%i` to the next number. A chosen
 * file is replaced, and never seen half written.
 */
pysamp_status pysamp_dump(const char *path);

/**
 * Whether a profile is being taken, or will be once Python code runs.
 */
bool pysamp_is_active(void);

/**
 * Has each Python function run through a machine-code stub of its own, whose address tells `perf`
 * and its like which function it is. `backend` is `"perf"`, for a map in `/tmp/perf-<pid>.map`, or
 * `"perf_jit"`, for a dump in `/tmp/jit-<pid>.dump`, as in `sys.activate_stack_trampoline`.
 *
 * Concerns the main interpreter's functions, from their next call on. With the GIL it is done when
 * this returns, without the GIL as soon as the main thread runs Python code. The backend may be
 * changed by another call. `PYSAMP_HOOK_TAKEN` says that another tool evaluates Python's frames:
 * CPython's own trampolines, a debugger, a compiler. Sampling goes on or not as it did.
 */
pysamp_status pysamp_activate_stack_trampoline(const char *backend);

/**
 * Ends what `pysamp_activate_stack_trampoline` began, at the same moment: functions that are called
 * from then on run without stubs. What was written stays. May be followed by another activation.
 */
pysamp_status pysamp_deactivate_stack_trampoline(void);

/**
 * The version of pysamp, such as `"0.1.0"`. The text is never freed.
 */
const char *pysamp_version(void);

/**
 * A status in a few words, for any number. The text is never freed.
 */
const char *pysamp_strerror(int status);

/**
 * One sentence about the calling thread's last call that has failed and returned a status, such as `"there is no option 'outptu'; did you mean 'output'?"`; `""` if none has.
 *
 * The text lasts until the thread's next such call, or its end.
 */
const char *pysamp_last_error(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PYSAMP_H */
