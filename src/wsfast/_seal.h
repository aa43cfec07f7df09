/* Types of which only the extension that defines them makes objects. */

#ifndef WSFAST_SEAL_H
#define WSFAST_SEAL_H

#include <Python.h>

/* Refuse to make objects of a type where Python code asks for it, by calling the type, by `__new__`, or by copying and
 * unpickling. What such a call makes has none of what the extension sets right after it, and C would read it all the same.
 */
static int wsf_seal(PyObject *sealed)
{
    PyTypeObject *type = (PyTypeObject *)sealed;
    type->tp_new = NULL;
    type->tp_vectorcall = NULL; /* Cython sets it: the call of a type that does without tp_new */
    type->tp_flags |= Py_TPFLAGS_DISALLOW_INSTANTIATION;
    /* It calls tp_new without looking; that of `object`, which is found next, refuses. */
    if (PyDict_DelItemString(type->tp_dict, "__new__") < 0) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError))
            return -1;
        PyErr_Clear();
    }
    PyType_Modified(type);
    return 0;
}

#endif
