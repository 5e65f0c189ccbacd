/* The module: its types, and what Python lends the core. */
#include "bundle.h"

Lent lent;
PyTypeObject *BundleType;
PyTypeObject *FutureType;

extern PyType_Spec region_spec;
extern PyType_Spec endpoint_spec;
int endpoint_watch_forks(void);

static PyObject *configure(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"dumps", "loads",   "dump_exception", "load_exception", "cancelled", "lost",
                            "corrupt", "refused", "forked",         "closed",         NULL};
    PyObject *v[10];
    PyObject **to[10] = {&lent.dumps,     &lent.loads, &lent.dump_exception, &lent.load_exception, &lent.cancelled,
                         &lent.lost,      &lent.corrupt, &lent.refused,      &lent.forked,         &lent.closed};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOOOO", names, &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[8],
                                     &v[9]))
        return NULL;
    for (int i = 0; i < 10; i++) {
        PyObject *before = *to[i];
        *to[i] = Py_NewRef(v[i]);
        Py_XDECREF(before);
    }
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"configure", (PyCFunction)(void *)configure, METH_VARARGS | METH_KEYWORDS,
     "configure(...): the pickler and the exception classes the core is to use."},
    {0},
};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromSpec(spec);
    return *type ? PyModule_AddObjectRef(module, name, (PyObject *)*type) : -1;
}

static int module_exec(PyObject *module)
{
    if (add_type(module, "Region", &region_spec, &RegionType) < 0)
        return -1;
    if (add_type(module, "Endpoint", &endpoint_spec, &EndpointType) < 0)
        return -1;
    if (add_type(module, "Bundle", &bundle_spec, &BundleType) < 0)
        return -1;
    if (add_type(module, "Future", &future_spec, &FutureType) < 0)
        return -1;
    return endpoint_watch_forks();
}

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "The C core: words, rings, waiting and the pump, the codec, the item loop, Future, streaming copy. No policy.",
    .m_size = -1,
    .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && module_exec(module) < 0)
        Py_CLEAR(module);
    return module;
}
