/* What an extension has to know of threads: CPython may be built without a GIL. */

#ifndef WSFAST_THREADS_H
#define WSFAST_THREADS_H

#include <Python.h>

#ifdef Py_GIL_DISABLED
#define WSF_FREE_THREADED 1
#ifdef _MSC_VER
#define WSF_OF_THREAD __declspec(thread)
#else
#define WSF_OF_THREAD _Thread_local
#endif
#else
#define WSF_FREE_THREADED 0
#define WSF_OF_THREAD
#endif

/* How many refer to an object. Without a GIL that is known of what this thread has made, to which nobody can add a
 * reference unless he has one; of other objects, more than anybody has. */
static inline Py_ssize_t wsf_holders(PyObject *thing)
{
#ifdef Py_GIL_DISABLED
    if (!_Py_IsOwnedByCurrentThread(thing))
        return PY_SSIZE_T_MAX;
#endif
    return Py_REFCNT(thing);
}

/* The version of an object's type, which changes with it; 0 if it has none. Another thread may be giving it one. No
 * reference to the type is counted: threads that count the same one wait for each other. */
static inline unsigned int wsf_version(PyObject *thing)
{
#if defined(Py_GIL_DISABLED) && (defined(__GNUC__) || defined(__clang__))
    return __atomic_load_n(&Py_TYPE(thing)->tp_version_tag, __ATOMIC_RELAXED);
#else
    return Py_TYPE(thing)->tp_version_tag;
#endif
}

/* A number that one thread writes while others look whether it is theirs: whole, in no order with anything else. */
static inline unsigned long wsf_load(const volatile unsigned long *place)
{
#if defined(__GNUC__) || defined(__clang__)
    return __atomic_load_n(place, __ATOMIC_RELAXED);
#else
    return *place;
#endif
}

static inline void wsf_store(volatile unsigned long *place, unsigned long value)
{
#if defined(__GNUC__) || defined(__clang__)
    __atomic_store_n(place, value, __ATOMIC_RELAXED);
#else
    *place = value;
#endif
}

#endif
