/* The part of this package that is written in C: identifiers, and the frequent ways through the codec.
 *
 * Atom, Pid, Port and Reference are what _identifiers.py says they are, as types without a garbage collector's head:
 * they hold no cycles, and a million of them cost a collection nothing. decode_terms() is the fast way of
 * etf/_decode.py, TermWriter the fast way of etf/_encode.py.
 *
 * The Python modules are the reference. Whatever is seldom, odd or wrong is handed to them through the helpers that
 * they give to bind(): a term of a seldom tag or type is read or written by them alone, and where anything is wrong,
 * they do the whole work again and find the words for it. So there is one place for every message and every rare form,
 * and all that stands here can be checked against it.
 *
 * Bytes are read between `at` and `end` of a Reader only, each time behind a comparison of the two.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Manual: External Term Format; the names of etf/tags.py. */
enum {
    TAG_NEW_FLOAT = 70,
    TAG_ATOM_CACHE_REF = 82,
    TAG_NEW_PID = 88,
    TAG_NEWER_REFERENCE = 90,
    TAG_SMALL_INTEGER = 97,
    TAG_INTEGER = 98,
    TAG_ATOM = 100,
    TAG_SMALL_TUPLE = 104,
    TAG_LARGE_TUPLE = 105,
    TAG_NIL = 106,
    TAG_STRING = 107,
    TAG_LIST = 108,
    TAG_BINARY = 109,
    TAG_SMALL_BIG = 110,
    TAG_SMALL_ATOM = 115,
    TAG_MAP = 116,
    TAG_ATOM_UTF8 = 118,
    TAG_SMALL_ATOM_UTF8 = 119,
};

/* The recursive ways go so deep, far from the end of any stack (etf/_decode.py and _encode.py: _FAST_DEPTH). */
#define FAST_DEPTH 100
/* Nesting allowed by default. */
#define MAX_DEPTH 10000
/* A distribution header lists at most so many atoms (etf/_heads.py). */
#define MAX_ATOM_REFS 255

static inline uint16_t read_u16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t read_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static inline void store_u32(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 24);
    p[1] = (uint8_t)(value >> 16);
    p[2] = (uint8_t)(value >> 8);
    p[3] = (uint8_t)value;
}

/* ------------------------------------------------------------------------------------------------ helpers in Python */

/* What the Python modules have given to bind(), by the names of `helpers` below. */
static PyObject *atom_bytes;       /* _identifiers: name -> external form; says why a name is no atom */
static PyObject *interned;         /* _identifiers: dict of name -> Atom, for ever */
static PyObject *intern_limit;     /* _identifiers: its greatest size */
static PyObject *atom_from_bytes;  /* etf._parts: text -> Atom, True, False or None */
static PyObject *make_list;        /* etf._parts: elements and tail -> list or ImproperList */
static PyObject *improper_list;    /* terms: ImproperList itself */
static PyObject *make_map;         /* etf._parts: keys and values in turn -> dict or ErlMap */
static PyObject *decode_fast;      /* etf._fast: any term */
static PyObject *decode_carefully; /* etf._careful: any terms, with every check */
static PyObject *encode_part;      /* etf._encode: term, refs, depth -> bytes, or None for encode_deep */
static PyObject *encode_deep;      /* etf._encode: term, refs, max_depth, no_records -> bytes */
static PyObject *layouts;          /* wire.control: by operation None or (kinds, has_payload, open_ended) */
static PyObject *no_payload;       /* wire.control: stands for the payload that an operation does not have */
static PyObject *atom_true, *atom_false, *atom_nil;

static const struct {
    const char *name;
    PyObject **place;
} helpers[] = {
    {"atom_bytes", &atom_bytes},
    {"interned", &interned},
    {"intern_limit", &intern_limit},
    {"atom_from_bytes", &atom_from_bytes},
    {"make_list", &make_list},
    {"improper_list", &improper_list},
    {"make_map", &make_map},
    {"decode_fast", &decode_fast},
    {"decode_carefully", &decode_carefully},
    {"encode_part", &encode_part},
    {"encode_deep", &encode_deep},
    {"layouts", &layouts},
    {"no_payload", &no_payload},
    {"atom_true", &atom_true},
    {"atom_false", &atom_false},
    {"atom_nil", &atom_nil},
};

PyDoc_STRVAR(bind_doc,
             "bind(**helpers)\n--\n\nTake what is left to Python; called once by each module that has some of it.");

static PyObject *bind(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count, PyObject *names) {
    Py_ssize_t given = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    if (count != 0) {
        PyErr_SetString(PyExc_TypeError, "bind() takes keyword arguments only");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < given; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        size_t at = 0;
        while (at < Py_ARRAY_LENGTH(helpers) && PyUnicode_CompareWithASCIIString(name, helpers[at].name) != 0) at++;
        if (at == Py_ARRAY_LENGTH(helpers)) {
            PyErr_Format(PyExc_TypeError, "bind() takes no %R", name);
            return NULL;
        }
        Py_INCREF(args[i]);
        Py_XSETREF(*helpers[at].place, args[i]);
    }
    Py_RETURN_NONE;
}

/* -------------------------------------------------------------------------------------------------------- identifiers
 */

typedef struct {
    PyObject_HEAD PyObject *name; /* str */
    PyObject *wire;               /* bytes */
    Py_hash_t hash;               /* of wire */
} Atom;

typedef struct {
    PyObject_HEAD Atom *node;
    int64_t id; /* 32 bits each on the wire; what does not fit there is refused when it is sent */
    int64_t serial;
    int64_t creation;
} Pid;

typedef struct {
    PyObject_HEAD Atom *node;
    PyObject *id; /* int: 64 bits on the wire */
    PyObject *creation;
} Port;

/* With its words inside: three of them, as BEAMs make it, fit into 48 bytes. */
typedef struct {
    PyObject_HEAD Atom *node;
    int64_t creation;
    uint32_t size; /* of words, in bytes */
    uint8_t words[];
} Reference;

static PyTypeObject AtomType, PidType, PortType, ReferenceType;

#define ATOM_CHECK(object) Py_IS_TYPE(object, &AtomType)
#define SIZE_OF_REFERENCE(size) (offsetof(Reference, words) + (size))

/* Sort the arguments of a constructor into `out`, by place or by name. All are required. */
static int take_arguments(PyTypeObject *type, const char *const *names, Py_ssize_t wanted, PyObject *const *args,
                          size_t nargsf, PyObject *kwnames, PyObject **out) {
    Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    Py_ssize_t named = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (count + named != wanted) goto wrong;
    memcpy(out, args, (size_t)count * sizeof *out);
    memset(out + count, 0, (size_t)named * sizeof *out);
    for (Py_ssize_t i = 0; i < named; i++) {
        Py_ssize_t at = count;
        while (at < wanted && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i), names[at]) != 0) at++;
        if (at == wanted || out[at] != NULL) goto wrong;
        out[at] = args[count + i];
    }
    return 0;
wrong:
    PyErr_Format(PyExc_TypeError, "wrong arguments: see %s.__match_args__ for what it takes", type->tp_name);
    return -1;
}

static int take_node(PyTypeObject *type, PyObject *node) {
    if (ATOM_CHECK(node)) return 0;
    PyErr_Format(PyExc_TypeError, "the node of a %s is an Atom, not %.100s", strrchr(type->tp_name, '.') + 1,
                 Py_TYPE(node)->tp_name);
    return -1;
}

static int take_number(PyObject *number, int64_t *out) {
    if (!PyLong_Check(number)) {
        PyErr_Format(PyExc_TypeError, "an int was expected, not %.100s", Py_TYPE(number)->tp_name);
        return -1;
    }
    *out = PyLong_AsLongLong(number);
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

static inline int same_atom(const Atom *one, const Atom *other) {
    if (one == other) return 1;
    /* Beyond the intern table there are several atoms of one name. */
    return one->hash == other->hash && PyBytes_GET_SIZE(one->wire) == PyBytes_GET_SIZE(other->wire) &&
           memcmp(PyBytes_AS_STRING(one->wire), PyBytes_AS_STRING(other->wire), (size_t)PyBytes_GET_SIZE(one->wire)) ==
               0;
}

static PyObject *equality(int equal, int op) { return PyBool_FromLong(op == Py_EQ ? equal : !equal); }

/* Everything but == and != is NotImplemented, and so is another type. */
#define ONLY_EQUALITY(self, other, op)                                                                                 \
    if ((op != Py_EQ && op != Py_NE) || Py_TYPE(self) != Py_TYPE(other)) { Py_RETURN_NOTIMPLEMENTED; }

/* ---- Atom */

static PyObject *atom_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    static const char *const names[] = {"name"};
    PyObject *name;
    if (take_arguments((PyTypeObject *)type, names, 1, args, nargsf, kwnames, &name) < 0) return NULL;
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "Atom() takes a str, not %.100s", Py_TYPE(name)->tp_name);
        return NULL;
    }
    PyObject *known = PyDict_GetItemWithError(interned, name);
    if (known != NULL || PyErr_Occurred()) return Py_XNewRef(known);
    Atom *self = NULL;
    name = PyUnicode_FromObject(name); /* a subclass is reduced to its text */
    PyObject *wire = name == NULL ? NULL : PyObject_CallOneArg(atom_bytes, name);
    if (wire == NULL || !PyBytes_CheckExact(wire) || PyBytes_GET_SIZE(wire) < 2) goto done;
    Py_ssize_t limit = PyLong_AsSsize_t(intern_limit);
    if (limit == -1 && PyErr_Occurred()) goto done;
    self = PyObject_New(Atom, &AtomType);
    if (self == NULL) goto done;
    self->name = Py_NewRef(name);
    self->wire = Py_NewRef(wire);
    self->hash = PyObject_Hash(wire);
    if (PyDict_GET_SIZE(interned) < limit && PyDict_SetItem(interned, name, (PyObject *)self) < 0) Py_CLEAR(self);
done:
    Py_XDECREF(name);
    Py_XDECREF(wire);
    return (PyObject *)self;
}

static void atom_dealloc(Atom *self) {
    Py_DECREF(self->name);
    Py_DECREF(self->wire);
    PyObject_Free(self);
}

static PyObject *atom_richcompare(PyObject *self, PyObject *other, int op) {
    ONLY_EQUALITY(self, other, op);
    return equality(same_atom((Atom *)self, (Atom *)other), op);
}

static Py_hash_t atom_hash(Atom *self) { return self->hash; }

static PyObject *atom_repr(Atom *self) { return PyUnicode_FromFormat("Atom(%R)", self->name); }

static PyObject *atom_str(Atom *self) { return Py_NewRef(self->name); }

static PyObject *atom_reduce(Atom *self, PyObject *Py_UNUSED(ignored)) {
    return Py_BuildValue("O(O)", &AtomType, self->name);
}

/* ---- Pid */

static inline PyObject *new_pid(Atom *node, int64_t id, int64_t serial, int64_t creation) {
    Pid *self = PyObject_New(Pid, &PidType);
    if (self != NULL) {
        self->node = (Atom *)Py_NewRef(node);
        self->id = id;
        self->serial = serial;
        self->creation = creation;
    }
    return (PyObject *)self;
}

static PyObject *pid_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    static const char *const names[] = {"node", "id", "serial", "creation"};
    PyObject *given[4];
    int64_t id, serial, creation;
    if (take_arguments((PyTypeObject *)type, names, 4, args, nargsf, kwnames, given) < 0 ||
        take_node((PyTypeObject *)type, given[0]) < 0 || take_number(given[1], &id) < 0 ||
        take_number(given[2], &serial) < 0 || take_number(given[3], &creation) < 0) {
        return NULL;
    }
    return new_pid((Atom *)given[0], id, serial, creation);
}

static void pid_dealloc(Pid *self) {
    Py_DECREF(self->node);
    PyObject_Free(self);
}

static inline int same_pid(const Pid *one, const Pid *other) {
    return one == other || (one->id == other->id && one->serial == other->serial && one->creation == other->creation &&
                            same_atom(one->node, other->node));
}

static PyObject *pid_richcompare(PyObject *self, PyObject *other, int op) {
    ONLY_EQUALITY(self, other, op);
    return equality(same_pid((Pid *)self, (Pid *)other), op);
}

/* As in _identifiers.py. The pids of one node are numbered one by one, and dicts like such hashes: neighbours in time
 * become neighbours in memory. */
static Py_hash_t pid_hash(Pid *self) {
    uint64_t bits = (uint64_t)self->id ^ (uint64_t)self->serial << 20 ^ (uint64_t)self->creation << 29;
    bits &= ((uint64_t)1 << 61) - 1;
    return bits == ((uint64_t)1 << 61) - 1 ? 0 : (Py_hash_t)bits;
}

static PyObject *pid_repr(Pid *self) {
    return PyUnicode_FromFormat("Pid(%R, %lld, %lld, %lld)", self->node, (long long)self->id, (long long)self->serial,
                                (long long)self->creation);
}

static PyObject *pid_str(Pid *self) {
    return PyUnicode_FromFormat("<%U.%lld.%lld>", self->node->name, (long long)self->id, (long long)self->serial);
}

static PyObject *pid_reduce(Pid *self, PyObject *Py_UNUSED(ignored)) {
    return Py_BuildValue("O(OLLL)", &PidType, self->node, (long long)self->id, (long long)self->serial,
                         (long long)self->creation);
}

/* ---- Port: seldom, so it keeps Python's integers */

static PyObject *port_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    static const char *const names[] = {"node", "id", "creation"};
    PyObject *given[3];
    if (take_arguments((PyTypeObject *)type, names, 3, args, nargsf, kwnames, given) < 0 ||
        take_node((PyTypeObject *)type, given[0]) < 0) {
        return NULL;
    }
    if (!PyLong_Check(given[1]) || !PyLong_Check(given[2])) {
        PyErr_SetString(PyExc_TypeError, "id and creation of a Port are ints");
        return NULL;
    }
    Port *self = PyObject_New(Port, &PortType);
    if (self != NULL) {
        self->node = (Atom *)Py_NewRef(given[0]);
        self->id = Py_NewRef(given[1]);
        self->creation = Py_NewRef(given[2]);
    }
    return (PyObject *)self;
}

static void port_dealloc(Port *self) {
    Py_DECREF(self->node);
    Py_DECREF(self->id);
    Py_DECREF(self->creation);
    PyObject_Free(self);
}

static PyObject *port_richcompare(PyObject *self, PyObject *other, int op) {
    ONLY_EQUALITY(self, other, op);
    Port *one = (Port *)self, *two = (Port *)other;
    int equal = PyObject_RichCompareBool(one->id, two->id, Py_EQ);
    if (equal > 0) equal = PyObject_RichCompareBool(one->creation, two->creation, Py_EQ);
    return equal < 0 ? NULL : equality(equal && same_atom(one->node, two->node), op);
}

static Py_hash_t port_hash(Port *self) {
    PyObject *parts = Py_BuildValue("(iOO)", 1, self->id, self->creation);
    if (parts == NULL) return -1;
    Py_hash_t hash = PyObject_Hash(parts);
    Py_DECREF(parts);
    return hash;
}

static PyObject *port_repr(Port *self) {
    return PyUnicode_FromFormat("Port(%R, %S, %S)", self->node, self->id, self->creation);
}

static PyObject *port_str(Port *self) { return PyUnicode_FromFormat("#Port<%U.%S>", self->node->name, self->id); }

static PyObject *port_reduce(Port *self, PyObject *Py_UNUSED(ignored)) {
    return Py_BuildValue("O(OOO)", &PortType, self->node, self->id, self->creation);
}

/* ---- Reference */

static inline PyObject *new_reference(Atom *node, int64_t creation, const uint8_t *words, uint32_t size) {
    Reference *self = PyObject_Malloc(SIZE_OF_REFERENCE(size));
    if (self == NULL) return PyErr_NoMemory();
    PyObject_Init((PyObject *)self, &ReferenceType);
    self->node = (Atom *)Py_NewRef(node);
    self->creation = creation;
    self->size = size;
    memcpy(self->words, words, size);
    return (PyObject *)self;
}

static PyObject *reference_vectorcall(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    static const char *const names[] = {"node", "creation", "words"};
    PyObject *given[3];
    int64_t creation;
    if (take_arguments((PyTypeObject *)type, names, 3, args, nargsf, kwnames, given) < 0 ||
        take_node((PyTypeObject *)type, given[0]) < 0 || take_number(given[1], &creation) < 0) {
        return NULL;
    }
    if (!PyBytes_Check(given[2]) || PyBytes_GET_SIZE(given[2]) > INT32_MAX) {
        PyErr_Format(PyExc_TypeError, "the words of a Reference are bytes, not %.100s", Py_TYPE(given[2])->tp_name);
        return NULL;
    }
    return new_reference((Atom *)given[0], creation, (const uint8_t *)PyBytes_AS_STRING(given[2]),
                         (uint32_t)PyBytes_GET_SIZE(given[2]));
}

static void reference_dealloc(Reference *self) {
    Py_DECREF(self->node);
    PyObject_Free(self);
}

static PyObject *reference_richcompare(PyObject *self, PyObject *other, int op) {
    ONLY_EQUALITY(self, other, op);
    Reference *one = (Reference *)self, *two = (Reference *)other;
    int equal = one == two || (one->size == two->size && one->creation == two->creation &&
                               memcmp(one->words, two->words, one->size) == 0 && same_atom(one->node, two->node));
    return equality(equal, op);
}

/* The first word counts, the others seldom change (see runtime/identifiers.py): left as it is, it makes neighbours in
 * time neighbours in a dict. */
static Py_hash_t reference_hash(Reference *self) {
    uint64_t bits = (uint64_t)self->creation;
    uint32_t at = self->size;
    while (at > 4) {
        at -= at % 4 == 0 ? 4 : at % 4;
        uint64_t word = 0;
        memcpy(&word, self->words + at, self->size - at < 4 ? self->size - at : 4);
        bits = (bits ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        bits ^= bits >> 32;
    }
    if (self->size >= 4) bits += read_u32(self->words);
    Py_hash_t hash = (Py_hash_t)bits;
    return hash == -1 ? -2 : hash;
}

static PyObject *reference_words(Reference *self, void *Py_UNUSED(closure)) {
    return PyBytes_FromStringAndSize((const char *)self->words, self->size);
}

static PyObject *reference_ids(Reference *self, void *Py_UNUSED(closure)) {
    PyObject *ids = PyTuple_New(self->size / 4);
    for (uint32_t i = 0; ids != NULL && i < self->size / 4; i++) {
        PyObject *word = PyLong_FromUnsignedLong(read_u32(self->words + 4 * i));
        if (word == NULL) Py_CLEAR(ids);
        else PyTuple_SET_ITEM(ids, i, word);
    }
    return ids;
}

static PyObject *reference_repr(Reference *self) {
    PyObject *words = reference_words(self, NULL);
    if (words == NULL) return NULL;
    PyObject *repr = PyUnicode_FromFormat("Reference(%R, %lld, %R)", self->node, (long long)self->creation, words);
    Py_DECREF(words);
    return repr;
}

static PyObject *reference_str(Reference *self) {
    PyObject *text = PyUnicode_FromFormat("#Ref<%U", self->node->name);
    for (uint32_t at = self->size / 4; text != NULL && at > 0; at--) { /* the BEAM prints the last word first */
        PyObject *longer =
            PyUnicode_FromFormat("%U.%u%s", text, read_u32(self->words + 4 * (at - 1)), at == 1 ? ">" : "");
        Py_SETREF(text, longer);
    }
    return text;
}

static PyObject *reference_sizeof(Reference *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromSize_t(SIZE_OF_REFERENCE(self->size));
}

static PyObject *reference_reduce(Reference *self, PyObject *Py_UNUSED(ignored)) {
    return Py_BuildValue("O(OLy#)", &ReferenceType, self->node, (long long)self->creation, self->words,
                         (Py_ssize_t)self->size);
}

/* ---- their attributes: read-only, an object or a number at some place of the struct */

static PyObject *get_object(PyObject *self, void *offset) {
    return Py_NewRef(*(PyObject **)((char *)self + (size_t)offset));
}

static PyObject *get_number(PyObject *self, void *offset) {
    return PyLong_FromLongLong(*(int64_t *)((char *)self + (size_t)offset));
}

#define OBJECT(type, attribute, doc) {#attribute, get_object, NULL, doc, (void *)offsetof(type, attribute)}
#define NUMBER(type, attribute, doc) {#attribute, get_number, NULL, doc, (void *)offsetof(type, attribute)}

static PyGetSetDef atom_attributes[] = {
    OBJECT(Atom, name, "The text between the quotes."),
    OBJECT(Atom, wire, "The external form, tag included, without the version byte."),
    {NULL},
};
static PyGetSetDef pid_attributes[] = {
    OBJECT(Pid, node, NULL),
    NUMBER(Pid, id, NULL),
    NUMBER(Pid, serial, NULL),
    NUMBER(Pid, creation, "Which life of the node: it changes at each restart."),
    {NULL},
};
static PyGetSetDef port_attributes[] = {
    OBJECT(Port, node, NULL),
    OBJECT(Port, id, NULL),
    OBJECT(Port, creation, NULL),
    {NULL},
};
static PyGetSetDef reference_attributes[] = {
    OBJECT(Reference, node, NULL),
    NUMBER(Reference, creation, NULL),
    {"words", (getter)reference_words, NULL, "The words as on the wire.", NULL},
    {"ids", (getter)reference_ids, NULL, "The words as integers, in wire order.", NULL},
    {NULL},
};

#define REDUCE(function)                                                                                               \
    {                                                                                                                  \
        {"__reduce__", (PyCFunction)function, METH_NOARGS, NULL}, { NULL }                                             \
    }
static PyMethodDef atom_methods[] = REDUCE(atom_reduce);
static PyMethodDef pid_methods[] = REDUCE(pid_reduce);
static PyMethodDef port_methods[] = REDUCE(port_reduce);
static PyMethodDef reference_methods[] = {
    {"__reduce__", (PyCFunction)reference_reduce, METH_NOARGS, NULL},
    {"__sizeof__", (PyCFunction)reference_sizeof, METH_NOARGS, NULL},
    {NULL},
};

/* Final types: without Py_TPFLAGS_BASETYPE. Their module is the one that hands them out, for pickle. */
#define IDENTIFIER(Name, prefix, doc)                                                                                  \
    static PyTypeObject Name##Type = {                                                                                 \
        PyVarObject_HEAD_INIT(NULL, 0).tp_name = "erlang_interop._identifiers." #Name,                                 \
        .tp_basicsize = sizeof(Name),                                                                                  \
        .tp_flags = Py_TPFLAGS_DEFAULT,                                                                                \
        .tp_doc = doc,                                                                                                 \
        .tp_dealloc = (destructor)prefix##_dealloc,                                                                    \
        .tp_vectorcall = prefix##_vectorcall,                                                                          \
        .tp_richcompare = prefix##_richcompare,                                                                        \
        .tp_hash = (hashfunc)prefix##_hash,                                                                            \
        .tp_repr = (reprfunc)prefix##_repr,                                                                            \
        .tp_str = (reprfunc)prefix##_str,                                                                              \
        .tp_getset = prefix##_attributes,                                                                              \
        .tp_methods = prefix##_methods,                                                                                \
    }

IDENTIFIER(Atom, atom, "Atom(name)\n--\n\nAn Erlang atom; see erlang_interop._identifiers.");
IDENTIFIER(Pid, pid, "Pid(node, id, serial, creation)\n--\n\nA process identifier, NEW_PID_EXT.");
IDENTIFIER(Port, port, "Port(node, id, creation)\n--\n\nA port identifier, V4_PORT_EXT.");
IDENTIFIER(Reference, reference, "Reference(node, creation, words)\n--\n\nA reference, NEWER_REFERENCE_EXT.");

/* ----------------------------------------------------------------------------------------------------------- decoding
 */

typedef struct {
    const uint8_t *at;    /* what is read next */
    const uint8_t *end;   /* of what may be read */
    const uint8_t *start; /* of `data` */
    PyObject *data;       /* bytes */
    PyObject *atoms;      /* list: what ATOM_CACHE_REF stands for */
    Py_ssize_t owed;      /* parts that the open compounds have announced and that are not begun */
} Reader;

/* Atoms in full, by their text: the last one of each hash. What is not here is asked of Python and put here. */
#define KNOWN_ATOMS 4096
static struct {
    PyObject *text;  /* bytes */
    PyObject *value; /* Atom, True, False or None */
} known_atoms[KNOWN_ATOMS];

/* All the decode functions return NULL where they cannot go on, with or without an exception: what is wrong is for
 * the careful way to say. */
static PyObject *decode_term(Reader *r, int depth);

static inline int has(const Reader *r, size_t size) { return (size_t)(r->end - r->at) >= size; }

/* Return the value of the atom whose UTF-8 text is at r->at, and step over it. */
static PyObject *decode_atom(Reader *r, size_t size) {
    if (!has(r, size)) return NULL;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < size; i++) hash = (hash ^ r->at[i]) * 16777619u;
    size_t slot = (hash ^ hash >> 15) % KNOWN_ATOMS;
    PyObject *text = known_atoms[slot].text;
    if (text == NULL || (size_t)PyBytes_GET_SIZE(text) != size || memcmp(PyBytes_AS_STRING(text), r->at, size) != 0) {
        text = PyBytes_FromStringAndSize((const char *)r->at, (Py_ssize_t)size);
        PyObject *value = text == NULL ? NULL : PyObject_CallOneArg(atom_from_bytes, text);
        if (value == NULL) {
            Py_XDECREF(text);
            return NULL;
        }
        Py_XSETREF(known_atoms[slot].text, text);
        Py_XSETREF(known_atoms[slot].value, value);
    }
    r->at += size;
    return Py_NewRef(known_atoms[slot].value);
}

static int is_ascii(const uint8_t *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (text[i] > 127) return 0;
    return 1;
}

/* Return the node of an identifier at r->at, and step over it; NULL unless it is an Atom in one of the usual forms. */
static PyObject *decode_node(Reader *r) {
    PyObject *node = NULL;
    if (has(r, 2) && r->at[0] == TAG_ATOM_CACHE_REF) {
        if (r->at[1] < PyList_GET_SIZE(r->atoms)) {
            node = Py_NewRef(PyList_GET_ITEM(r->atoms, r->at[1]));
            r->at += 2;
        }
    } else if (has(r, 2) && r->at[0] == TAG_SMALL_ATOM_UTF8) {
        r->at += 2;
        node = decode_atom(r, r->at[-1]);
    } else if (has(r, 3) && r->at[0] == TAG_ATOM) { /* as term_to_binary of OTP 25 writes it, in Latin-1 */
        uint16_t size = read_u16(r->at + 1);
        if (has(r, 3 + (size_t)size) && is_ascii(r->at + 3, size)) {
            r->at += 3;
            node = decode_atom(r, size);
        }
    }
    if (node != NULL && !ATOM_CHECK(node)) /* a node called true */
        Py_CLEAR(node);
    return node;
}

/* Let Python decode the one term at `tag`. */
static PyObject *decode_rare(Reader *r, const uint8_t *tag, int depth) {
    if (PyErr_Occurred()) return NULL;
    PyObject *term = NULL, *out = PyList_New(0);
    if (out == NULL) return NULL;
    PyObject *behind =
        PyObject_CallFunction(decode_fast, "OniOOi", r->data, (Py_ssize_t)(tag - r->start), 1, r->atoms, out, depth);
    if (behind != NULL) {
        Py_ssize_t position = PyLong_AsSsize_t(behind);
        if (position > tag - r->start && position <= r->end - r->start && PyList_GET_SIZE(out) == 1) {
            term = Py_NewRef(PyList_GET_ITEM(out, 0));
            r->at = r->start + position;
        }
        Py_DECREF(behind);
    }
    Py_DECREF(out);
    return term;
}

/* Whether a cycle could ever go through `object`. A dict that is not tracked yet will be once it holds a container; only
 * a tuple stays as it is. */
static inline int may_be_tracked(PyObject *object) {
    return PyType_IS_GC(Py_TYPE(object)) && (!PyTuple_CheckExact(object) || PyObject_GC_IsTracked(object));
}

/* Take `parts` into account that will follow; each takes a byte at least. Whatever is allocated for them is therefore
 * in proportion to the bytes that are there, and not to what a length field says. */
static inline int announce(Reader *r, uint64_t parts) {
    if (parts > (uint64_t)(r->end - r->at - r->owed)) return 0;
    r->owed += (Py_ssize_t)parts;
    return 1;
}

static PyObject *decode_tuple(Reader *r, uint32_t arity, int depth) {
    if (depth <= 0 || !announce(r, arity)) return NULL;
    PyObject *tuple = PyTuple_New(arity);
    if (tuple == NULL || arity == 0) return tuple;
    int tracked = 0;
    for (uint32_t i = 0; i < arity; i++) {
        r->owed--;
        PyObject *part = decode_term(r, depth - 1);
        if (part == NULL) {
            Py_DECREF(tuple);
            return NULL;
        }
        tracked |= may_be_tracked(part);
        PyTuple_SET_ITEM(tuple, i, part);
    }
    if (!tracked) PyObject_GC_UnTrack(tuple); /* no cycle can ever go through it */
    return tuple;
}

static PyObject *decode_list(Reader *r, uint32_t size, int depth) {
    if (depth <= 0 || !announce(r, (uint64_t)size + 1)) return NULL;
    PyObject *list = PyList_New(size);
    if (list == NULL) return NULL;
    for (uint32_t i = 0; i < size; i++) {
        r->owed--;
        PyObject *part = decode_term(r, depth - 1);
        if (part == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, i, part);
    }
    r->owed--;
    if (has(r, 1) && r->at[0] == TAG_NIL) {
        r->at++;
        return list;
    }
    PyObject *whole = NULL;
    if (has(r, 1) && r->at[0] != TAG_LIST) { /* a list in pieces is put together by the careful way */
        PyObject *tail = decode_term(r, depth - 1);
        if (tail != NULL && size > 0 && !PyList_Check(tail)) {
            PyObject *parts[] = {list, tail};
            whole = PyObject_Vectorcall(improper_list, parts, 2, NULL);
        } else if (tail != NULL && PyList_Append(list, tail) == 0) {
            whole = PyObject_CallOneArg(make_list, list);
        }
        Py_XDECREF(tail);
    }
    Py_DECREF(list);
    return whole;
}

/* Go on with a map at a pair that a dict cannot take: its key is there already, or cannot be hashed. Takes over the
 * references to `dict`, `key` and `value`. */
static PyObject *decode_other_map(Reader *r, PyObject *dict, PyObject *key, PyObject *value, uint64_t left, int depth) {
    PyObject *map = NULL, *parts = PyList_New(0);
    Py_ssize_t place = 0;
    PyObject *known, *item;
    if (parts == NULL) goto done;
    PyErr_Clear();
    while (PyDict_Next(dict, &place, &known, &item))
        if (PyList_Append(parts, known) < 0 || PyList_Append(parts, item) < 0) goto done;
    if (PyList_Append(parts, key) < 0 || PyList_Append(parts, value) < 0) goto done;
    for (; left > 0; left--) {
        r->owed--;
        PyObject *part = decode_term(r, depth - 1);
        int failed = part == NULL || PyList_Append(parts, part) < 0;
        Py_XDECREF(part);
        if (failed) goto done;
    }
    map = PyObject_CallOneArg(make_map, parts);
done:
    Py_DECREF(dict);
    Py_DECREF(key);
    Py_DECREF(value);
    Py_XDECREF(parts);
    return map;
}

static PyObject *decode_map(Reader *r, uint32_t size, int depth) {
    if (depth <= 0 || !announce(r, 2 * (uint64_t)size)) return NULL;
    PyObject *dict = PyDict_New();
    if (dict == NULL) return NULL;
    for (uint32_t i = 0; i < size; i++) {
        r->owed--;
        PyObject *key = decode_term(r, depth - 1);
        r->owed--;
        PyObject *value = key == NULL ? NULL : decode_term(r, depth - 1);
        if (value == NULL) {
            Py_XDECREF(key);
            Py_DECREF(dict);
            return NULL;
        }
        if (PyDict_SetDefault(dict, key, value) == NULL || PyDict_GET_SIZE(dict) != (Py_ssize_t)i + 1)
            return decode_other_map(r, dict, key, value, 2 * (uint64_t)(size - i - 1), depth);
        Py_DECREF(key);
        Py_DECREF(value);
    }
    return dict;
}

static PyObject *decode_bytes_list(const uint8_t *bytes, uint16_t size) {
    PyObject *list = PyList_New(size);
    for (uint16_t i = 0; list != NULL && i < size; i++)
        PyList_SET_ITEM(list, i, PyLong_FromLong(bytes[i])); /* small integers are there already: this cannot fail */
    return list;
}

/* Up to 64 bits; longer ones are Python's. */
static PyObject *decode_big(const uint8_t *bytes, uint8_t size, int negative) {
    uint64_t value = 0;
    for (uint8_t i = 0; i < size; i++) value |= (uint64_t)bytes[i] << (8 * i);
    if (!negative) return PyLong_FromUnsignedLongLong(value);
    return value <= INT64_MAX ? PyLong_FromLongLong(-(int64_t)value) : NULL;
}

/* Decode the term at r->at, and step over it. What breaks out of the switch is left to Python. The tests of what a
 * term may be, and in which order they are made, are those of etf/_fast.py. */
static PyObject *decode_term(Reader *r, int depth) {
    if (!has(r, 1)) return NULL;
    const uint8_t *tag = r->at++;
    switch (*tag) {
    case TAG_ATOM_CACHE_REF:
        if (!has(r, 1) || *r->at >= PyList_GET_SIZE(r->atoms)) return NULL;
        return Py_NewRef(PyList_GET_ITEM(r->atoms, *r->at++));
    case TAG_SMALL_TUPLE:
        if (!has(r, 1)) return NULL;
        r->at += 1;
        return decode_tuple(r, tag[1], depth);
    case TAG_NEW_PID: {
        PyObject *node = decode_node(r);
        if (node == NULL) break;
        PyObject *pid = NULL;
        if (has(r, 12)) {
            pid = new_pid((Atom *)node, read_u32(r->at), read_u32(r->at + 4), read_u32(r->at + 8));
            r->at += 12;
        }
        Py_DECREF(node);
        return pid;
    }
    case TAG_SMALL_INTEGER:
        if (!has(r, 1)) return NULL;
        return PyLong_FromLong(*r->at++);
    case TAG_INTEGER:
        if (!has(r, 4)) return NULL;
        r->at += 4;
        return PyLong_FromLong((int32_t)read_u32(tag + 1));
    case TAG_BINARY: {
        if (!has(r, 4)) return NULL;
        uint32_t size = read_u32(r->at);
        r->at += 4;
        if (!has(r, size)) return NULL;
        r->at += size;
        return PyBytes_FromStringAndSize((const char *)tag + 5, size);
    }
    case TAG_SMALL_ATOM_UTF8:
        if (!has(r, 1)) return NULL;
        r->at += 1;
        return decode_atom(r, tag[1]);
    case TAG_LIST:
        if (!has(r, 4)) return NULL;
        r->at += 4;
        return decode_list(r, read_u32(tag + 1), depth);
    case TAG_NIL: return PyList_New(0);
    case TAG_NEWER_REFERENCE: {
        if (!has(r, 2)) return NULL;
        uint32_t size = 4 * (uint32_t)read_u16(r->at);
        if (size == 0 || size > 20) return NULL;
        r->at += 2;
        PyObject *node = decode_node(r);
        if (node == NULL) break;
        PyObject *reference = NULL;
        if (has(r, 4 + size)) {
            reference = new_reference((Atom *)node, read_u32(r->at), r->at + 4, size);
            r->at += 4 + size;
        }
        Py_DECREF(node);
        return reference;
    }
    case TAG_MAP:
        if (!has(r, 4)) return NULL;
        r->at += 4;
        return decode_map(r, read_u32(tag + 1), depth);
    case TAG_STRING: {
        if (!has(r, 2)) return NULL;
        uint16_t size = read_u16(r->at);
        r->at += 2;
        if (!has(r, size)) return NULL;
        r->at += size;
        return decode_bytes_list(tag + 3, size);
    }
    case TAG_NEW_FLOAT: {
        if (!has(r, 8)) return NULL;
        double number = PyFloat_Unpack8((const char *)r->at, 0);
        if (number - number != 0.0) /* nan or infinite; or an error, of which the exception is set */
            return NULL;
        r->at += 8;
        return PyFloat_FromDouble(number);
    }
    case TAG_SMALL_BIG: {
        if (!has(r, 2)) return NULL;
        uint8_t size = tag[1];
        r->at += 2;
        if (!has(r, size)) return NULL;
        PyObject *number = size > 8 ? NULL : decode_big(r->at, size, tag[2]);
        if (number == NULL) break;
        r->at += size;
        return number;
    }
    case TAG_LARGE_TUPLE:
        if (!has(r, 4)) return NULL;
        r->at += 4;
        return decode_tuple(r, read_u32(tag + 1), depth);
    case TAG_SMALL_ATOM: /* these two are Latin-1, of which ASCII is UTF-8 too */
        if (!has(r, 1) || !has(r, 1 + (size_t)tag[1]) || !is_ascii(tag + 2, tag[1])) break;
        r->at += 1;
        return decode_atom(r, tag[1]);
    case TAG_ATOM:
        if (!has(r, 2) || !has(r, 2 + (size_t)read_u16(tag + 1)) || !is_ascii(tag + 3, read_u16(tag + 1))) break;
        r->at += 2;
        return decode_atom(r, read_u16(tag + 1));
    case TAG_ATOM_UTF8:
        if (!has(r, 2)) return NULL;
        r->at += 2;
        return decode_atom(r, read_u16(tag + 1));
    }
    return decode_rare(r, tag, depth);
}

PyDoc_STRVAR(decode_terms_doc,
             "decode_terms(data, pos, end, count, atoms, max_depth=10000)\n--\n\nAs etf._decode.decode_terms says.");

static PyObject *decode_terms(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given) {
    if (given != 5 && given != 6) {
        PyErr_Format(PyExc_TypeError, "decode_terms() takes 5 or 6 arguments, not %zd", given);
        return NULL;
    }
    PyObject *data = args[0], *atoms = args[4];
    if (!PyBytes_Check(data) || !PyList_Check(atoms)) {
        PyErr_SetString(PyExc_TypeError, "decode_terms() takes bytes, and a list of atoms");
        return NULL;
    }
    Py_ssize_t pos = PyLong_AsSsize_t(args[1]);
    Py_ssize_t end = PyLong_AsSsize_t(args[2]);
    Py_ssize_t count = PyLong_AsSsize_t(args[3]);
    Py_ssize_t max_depth = given == 6 ? PyLong_AsSsize_t(args[5]) : MAX_DEPTH;
    if (PyErr_Occurred()) return NULL;
    PyObject *out = PyList_New(0);
    if (out == NULL) return NULL;
    if (pos >= 0 && pos <= end && end <= PyBytes_GET_SIZE(data)) {
        const uint8_t *start = (const uint8_t *)PyBytes_AS_STRING(data);
        Reader reader = {.at = start + pos, .end = start + end, .start = start, .data = data, .atoms = atoms};
        int depth = max_depth < FAST_DEPTH ? (int)max_depth : FAST_DEPTH;
        Py_ssize_t missing = count;
        for (; missing > 0; missing--) {
            PyObject *term = decode_term(&reader, depth);
            int failed = term == NULL || PyList_Append(out, term) < 0;
            Py_XDECREF(term);
            if (failed) break;
        }
        if (missing <= 0) return Py_BuildValue("Nn", out, (Py_ssize_t)(reader.at - start));
        if (PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_Exception)) { /* somebody pressed Ctrl-C */
                Py_DECREF(out);
                return NULL;
            }
            PyErr_Clear(); /* whatever it was: the careful way either finds it again and names it, or succeeds */
        }
        if (PyList_SetSlice(out, 0, PyList_GET_SIZE(out), NULL) < 0) {
            Py_DECREF(out);
            return NULL;
        }
    }
    PyObject *behind = PyObject_CallFunction(decode_carefully, "OnnnOOn", data, pos, end, count, atoms, out, max_depth);
    if (behind == NULL) {
        Py_DECREF(out);
        return NULL;
    }
    return Py_BuildValue("NN", out, behind);
}

/* What a slot of a control tuple holds: the numbers of wire/control.py. Those behind KIND_DEST are seldom, and left to
 * Python. */
enum { KIND_UNUSED, KIND_TERM, KIND_PID, KIND_PEER, KIND_ATOM, KIND_PROC, KIND_REF, KIND_DEST };

static inline int is_name(PyObject *term) { return ATOM_CHECK(term) || term == Py_None || PyBool_Check(term); }

/* Whether `control` has the form of its operation: Layout.accepts of wire/control.py. `layout` is what stands for the
 * operation in `layouts`. */
static int fits(PyObject *control, PyObject *layout, Atom *peer) {
    const char *kinds = PyBytes_AS_STRING(PyTuple_GET_ITEM(layout, 0));
    Py_ssize_t count = PyBytes_GET_SIZE(PyTuple_GET_ITEM(layout, 0));
    Py_ssize_t size = PyTuple_GET_SIZE(control) - 1;
    if (size != count && !(size > count && PyTuple_GET_ITEM(layout, 2) == Py_True)) return 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *term = PyTuple_GET_ITEM(control, i + 1);
        int pid = Py_IS_TYPE(term, &PidType), reference = Py_IS_TYPE(term, &ReferenceType), good;
        switch (kinds[i]) {
        case KIND_UNUSED:
        case KIND_TERM: good = 1; break;
        case KIND_PID: good = pid; break;
        case KIND_PEER: good = pid && same_atom(((Pid *)term)->node, peer); break;
        case KIND_ATOM: good = is_name(term); break;
        case KIND_PROC: good = pid || is_name(term); break;
        case KIND_REF: good = reference; break;
        case KIND_DEST: good = pid || reference || is_name(term); break;
        default: good = 0;
        }
        if (!good) return 0;
    }
    return 1;
}

/* Decode the signal of one frame; NULL, with or without an exception, when it is not of the frequent kind. */
static PyObject *decode_signal(Reader *r, Atom *peer, int depth) {
    if (!has(r, 4) || r->at[0] != TAG_SMALL_TUPLE || r->at[2] != TAG_SMALL_INTEGER ||
        r->at[3] >= PyList_GET_SIZE(layouts)) {
        return NULL;
    }
    PyObject *layout = PyList_GET_ITEM(layouts, r->at[3]);
    if (layout == Py_None) return NULL;
    PyObject *signal = NULL, *payload = NULL, *control = decode_term(r, depth);
    if (control != NULL && fits(control, layout, peer)) {
        payload = PyTuple_GET_ITEM(layout, 1) == Py_True ? decode_term(r, depth) : Py_NewRef(no_payload);
        if (payload != NULL && r->at == r->end) signal = PyTuple_Pack(2, control, payload);
    }
    if (signal != NULL && !may_be_tracked(control) && !may_be_tracked(payload)) PyObject_GC_UnTrack(signal);
    Py_XDECREF(control);
    Py_XDECREF(payload);
    return signal;
}

/* Return the atoms of the header `bytes`, or NULL when it is not known; an exception may be set. */
static PyObject *known_header(PyObject *headers, const uint8_t *bytes, size_t size) {
    PyObject *key = PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size);
    PyObject *atoms = key == NULL ? NULL : PyDict_GetItemWithError(headers, key);
    Py_XDECREF(key);
    return atoms != NULL && PyList_Check(atoms) ? Py_NewRef(atoms) : NULL;
}

PyDoc_STRVAR(read_frames_doc, "read_frames(data, pos, headers, peer, max_depth, signals)\n--\n\nAs wire.channel says.");

static PyObject *read_frames(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t given) {
    if (given != 6 || !PyBytes_Check(args[0]) || !PyDict_Check(args[2]) || !ATOM_CHECK(args[3]) ||
        !PyList_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "read_frames() takes bytes, position, dict, Atom, depth, and a list");
        return NULL;
    }
    PyObject *data = args[0], *headers = args[2], *signals = args[5];
    Py_ssize_t pos = PyLong_AsSsize_t(args[1]), max_depth = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred()) return NULL;
    if (pos < 0 || pos > PyBytes_GET_SIZE(data)) {
        PyErr_Format(PyExc_IndexError, "no byte at %zd", pos);
        return NULL;
    }
    int depth = max_depth < FAST_DEPTH ? (int)max_depth : FAST_DEPTH;
    const uint8_t *start = (const uint8_t *)PyBytes_AS_STRING(data);
    const uint8_t *at = start + pos, *end = start + PyBytes_GET_SIZE(data);
    const uint8_t *header = at; /* of the frame before, */
    size_t header_size = 0;     /* and what its references stand for */
    PyObject *atoms = NULL;
    for (;;) {
        /* length, 131, 68, number of references */
        size_t size = end - at < 7 ? 0 : read_u32(at);
        if (size < 3 || size > (size_t)(end - at - 4) || at[4] != 131 || at[5] != 68) break;
        size_t references = 2 + (size_t)at[6] / 2 + at[6];
        if (size < 2 + references) break;
        if (atoms == NULL || references != header_size || memcmp(at + 6, header, references) != 0) {
            header = at + 6;
            header_size = references;
            Py_XSETREF(atoms, known_header(headers, header, references));
            if (atoms == NULL) break;
        }
        Reader reader = {.at = at + 6 + references, .end = at + 4 + size, .start = start, .data = data, .atoms = atoms};
        PyObject *signal = decode_signal(&reader, (Atom *)args[3], depth);
        if (signal == NULL) break;
        int failed = PyList_Append(signals, signal) < 0;
        Py_DECREF(signal);
        if (failed) break;
        at += 4 + size;
    }
    Py_XDECREF(atoms);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception)) return NULL;
        PyErr_Clear(); /* the frame is read once more, carefully */
    }
    return PyLong_FromSsize_t(at - start);
}

/* ----------------------------------------------------------------------------------------------------------- encoding
 */

typedef struct {
    PyObject_HEAD uint8_t *bytes;
    Py_ssize_t size; /* bytes in use */
    Py_ssize_t room; /* bytes allocated */
    PyObject *no_records;
} TermWriter;

/* One call of write_term(). Few atoms occur in one term, and mostly the same ones again: `memo` has their indexes. */
#define MEMO 16
typedef struct {
    TermWriter *writer;
    PyObject *refs; /* dict, or NULL */
    struct {
        PyObject *atom;
        uint8_t index;
    } memo[MEMO];
} Writing;

/* What the put functions return. */
enum { DONE = 0, FAILED = -1 /* an exception is set */, TOO_DEEP = 1 /* or a record: encode_deep() can do it */ };

static int put_term(Writing *w, PyObject *term, int depth);

static int grow(TermWriter *self, Py_ssize_t size) {
    if (size > PY_SSIZE_T_MAX / 2 - self->size) {
        PyErr_NoMemory();
        return FAILED;
    }
    Py_ssize_t room = self->room < 256 ? 256 : 2 * self->room;
    if (room < self->size + size) room = self->size + size;
    uint8_t *bytes = PyMem_Realloc(self->bytes, (size_t)room);
    if (bytes == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    self->bytes = bytes;
    self->room = room;
    return DONE;
}

/* Make place for `size` bytes; return where they go, or NULL. They count once `size` is added to self->size. */
static inline uint8_t *reserve(TermWriter *self, Py_ssize_t size) {
    if (self->room - self->size < size && grow(self, size) < 0) return NULL;
    return self->bytes + self->size;
}

static int put_bytes(TermWriter *self, const void *bytes, Py_ssize_t size) {
    if (size == 0) return DONE; /* there may be no buffer yet */
    uint8_t *place = reserve(self, size);
    if (place == NULL) return FAILED;
    memcpy(place, bytes, (size_t)size);
    self->size += size;
    return DONE;
}

static inline int put_head(TermWriter *self, uint8_t tag, uint32_t size) {
    uint8_t *place = reserve(self, 5);
    if (place == NULL) return FAILED;
    place[0] = tag;
    store_u32(place + 1, size);
    self->size += 5;
    return DONE;
}

/* Let Python write a term of a seldom type, or say what is wrong with it. */
static int put_rare(Writing *w, PyObject *term, int depth) {
    PyObject *part = PyObject_CallFunction(encode_part, "OOi", term, w->refs == NULL ? Py_None : w->refs, depth);
    memset(w->memo, 0, sizeof w->memo); /* code of a subclass may have let go of an atom that is in there */
    if (part == NULL) return FAILED;
    int result = part == Py_None ? TOO_DEEP : FAILED;
    if (PyBytes_Check(part)) result = put_bytes(w->writer, PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part));
    Py_DECREF(part);
    return result;
}

/* Return the index of an atom in the distribution header, -1 when it is to be written in full, -2 with an exception. */
static int index_of(Writing *w, Atom *atom) {
    size_t slot = ((uintptr_t)atom >> 4) % MEMO;
    if (w->memo[slot].atom == (PyObject *)atom) return w->memo[slot].index;
    PyObject *known = PyDict_GetItemWithError(w->refs, atom->wire);
    long index;
    if (known != NULL) {
        index = PyLong_AsLong(known);
        if (index < 0 || index >= MAX_ATOM_REFS) {
            if (!PyErr_Occurred()) PyErr_Format(PyExc_IndexError, "a header has no atom %ld", index);
            return -2;
        }
    } else {
        index = (long)PyDict_GET_SIZE(w->refs);
        if (PyErr_Occurred()) return -2;
        if (index >= MAX_ATOM_REFS) return -1;
        PyObject *number = PyLong_FromLong(index);
        int failed = number == NULL || PyDict_SetItem(w->refs, atom->wire, number) < 0;
        Py_XDECREF(number);
        if (failed) return -2;
    }
    w->memo[slot].atom = (PyObject *)atom; /* borrowed: it is part of the term being written */
    w->memo[slot].index = (uint8_t)index;
    return (int)index;
}

static inline int put_atom(Writing *w, Atom *atom) {
    if (w->refs != NULL) {
        int index = index_of(w, atom);
        if (index >= 0) {
            uint8_t *place = reserve(w->writer, 2);
            if (place == NULL) return FAILED;
            place[0] = TAG_ATOM_CACHE_REF;
            place[1] = (uint8_t)index;
            w->writer->size += 2;
            return DONE;
        }
        if (index == -2) return FAILED;
    }
    return put_bytes(w->writer, PyBytes_AS_STRING(atom->wire), PyBytes_GET_SIZE(atom->wire));
}

static int put_integer(Writing *w, PyObject *number, int depth) {
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow) return put_rare(w, number, depth);
    uint8_t *place = reserve(w->writer, 11);
    if (place == NULL) return FAILED;
    if (value >= 0 && value < 256) {
        place[0] = TAG_SMALL_INTEGER;
        place[1] = (uint8_t)value;
        w->writer->size += 2;
        return DONE;
    }
    if (value >= INT32_MIN && value <= INT32_MAX) {
        place[0] = TAG_INTEGER;
        store_u32(place + 1, (uint32_t)value);
        w->writer->size += 5;
        return DONE;
    }
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    uint8_t size = 0;
    for (; rest != 0; rest >>= 8) place[3 + size++] = (uint8_t)rest;
    place[0] = TAG_SMALL_BIG;
    place[1] = size;
    place[2] = value < 0;
    w->writer->size += 3 + size;
    return DONE;
}

static int put_pid(Writing *w, Pid *pid, int depth) {
    if ((uint64_t)(pid->id | pid->serial | pid->creation) > UINT32_MAX) return put_rare(w, (PyObject *)pid, depth);
    uint8_t *place = reserve(w->writer, 1);
    if (place == NULL) return FAILED;
    place[0] = TAG_NEW_PID;
    w->writer->size += 1;
    if (put_atom(w, pid->node) < 0 || (place = reserve(w->writer, 12)) == NULL) return FAILED;
    store_u32(place, (uint32_t)pid->id);
    store_u32(place + 4, (uint32_t)pid->serial);
    store_u32(place + 8, (uint32_t)pid->creation);
    w->writer->size += 12;
    return DONE;
}

static int put_reference(Writing *w, Reference *reference, int depth) {
    if (reference->size % 4 != 0 || reference->size == 0 || reference->size > 20 ||
        (uint64_t)reference->creation > UINT32_MAX) {
        return put_rare(w, (PyObject *)reference, depth);
    }
    uint8_t *place = reserve(w->writer, 3);
    if (place == NULL) return FAILED;
    place[0] = TAG_NEWER_REFERENCE;
    place[1] = 0;
    place[2] = (uint8_t)(reference->size / 4);
    w->writer->size += 3;
    if (put_atom(w, reference->node) < 0 || (place = reserve(w->writer, 24)) == NULL) return FAILED;
    store_u32(place, (uint32_t)reference->creation);
    memcpy(place + 4, reference->words, reference->size);
    w->writer->size += 4 + reference->size;
    return DONE;
}

static int put_binary(Writing *w, const char *bytes, Py_ssize_t size) {
    return put_head(w->writer, TAG_BINARY, (uint32_t)size) < 0 ? FAILED : put_bytes(w->writer, bytes, size);
}

static int put_text(Writing *w, PyObject *text, int depth) {
    if (PyUnicode_IS_ASCII(text) && (uint64_t)PyUnicode_GET_LENGTH(text) <= UINT32_MAX)
        return put_binary(w, (const char *)PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
    return put_rare(w, text, depth);
}

/* Whether the BEAM writes this list as STRING_EXT; if so, write it. */
static int put_string(Writing *w, PyObject *list) {
    Py_ssize_t size = PyList_GET_SIZE(list);
    if (size > 65535) return 0;
    uint8_t *place = reserve(w->writer, 3 + size);
    if (place == NULL) return FAILED;
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        int overflow;
        long value = PyLong_CheckExact(item) ? PyLong_AsLongAndOverflow(item, &overflow) : -1;
        if (value < 0 || value > 255) /* an overflow gives -1 */
            return 0;
        place[3 + i] = (uint8_t)value;
    }
    place[0] = TAG_STRING;
    place[1] = (uint8_t)(size >> 8);
    place[2] = (uint8_t)size;
    w->writer->size += 3 + size;
    return 1;
}

static int changed_meanwhile(void) {
    PyErr_SetString(PyExc_RuntimeError, "a list, a dict or the buffer changed its size while it was encoded");
    return FAILED;
}

/* Writing a part may run code of a subclass, which may change the list or dict it is part of: their items are held
 * while they are written, and their sizes looked at again. Tuples cannot change. */
static int put_elements(Writing *w, PyObject *list, Py_ssize_t size, int depth) {
    for (Py_ssize_t i = 0; i < size; i++) {
        if (PyList_GET_SIZE(list) != size) return changed_meanwhile();
        PyObject *item = Py_NewRef(PyList_GET_ITEM(list, i));
        int result = put_term(w, item, depth - 1);
        Py_DECREF(item);
        if (result != DONE) return result;
    }
    return DONE;
}

static int put_list(Writing *w, PyObject *list, int depth) {
    Py_ssize_t size = PyList_GET_SIZE(list);
    if (depth <= 0) return TOO_DEEP;
    if (size > 0) {
        if (PyLong_CheckExact(PyList_GET_ITEM(list, 0))) {
            int string = put_string(w, list);
            if (string != 0) return string < 0 ? FAILED : DONE;
        }
        if ((uint64_t)size > UINT32_MAX) return put_rare(w, list, depth);
        if (put_head(w->writer, TAG_LIST, (uint32_t)size) < 0) return FAILED;
        int result = put_elements(w, list, size, depth);
        if (result != DONE) return result;
    }
    uint8_t nil = TAG_NIL;
    return put_bytes(w->writer, &nil, 1);
}

static int put_improper_list(Writing *w, PyObject *term, int depth) {
    if (depth <= 0) return TOO_DEEP;
    PyObject *elements = PyObject_GetAttrString(term, "elements");
    PyObject *tail = PyObject_GetAttrString(term, "tail");
    int result = FAILED;
    if (elements != NULL && tail != NULL) {
        if (!PyList_CheckExact(elements) || (uint64_t)PyList_GET_SIZE(elements) > UINT32_MAX) {
            result = put_rare(w, term, depth);
        } else if (put_head(w->writer, TAG_LIST, (uint32_t)PyList_GET_SIZE(elements)) == DONE) {
            result = put_elements(w, elements, PyList_GET_SIZE(elements), depth);
            if (result == DONE) result = put_term(w, tail, depth - 1);
        }
    }
    Py_XDECREF(elements);
    Py_XDECREF(tail);
    return result;
}

static int put_tuple(Writing *w, PyObject *tuple, int depth) {
    Py_ssize_t arity = PyTuple_GET_SIZE(tuple);
    if (depth <= 0) return TOO_DEEP;
    if (arity < 256) {
        uint8_t *place = reserve(w->writer, 2);
        if (place == NULL) return FAILED;
        place[0] = TAG_SMALL_TUPLE;
        place[1] = (uint8_t)arity;
        w->writer->size += 2;
    } else if ((uint64_t)arity > UINT32_MAX) {
        return put_rare(w, tuple, depth);
    } else if (put_head(w->writer, TAG_LARGE_TUPLE, (uint32_t)arity) < 0) {
        return FAILED;
    }
    for (Py_ssize_t i = 0; i < arity; i++) {
        int result = put_term(w, PyTuple_GET_ITEM(tuple, i), depth - 1);
        if (result != DONE) return result;
    }
    return DONE;
}

static int put_dict(Writing *w, PyObject *dict, int depth) {
    Py_ssize_t size = PyDict_GET_SIZE(dict), place = 0, seen = 0;
    PyObject *key, *value;
    if (depth <= 0) return TOO_DEEP;
    if ((uint64_t)size > UINT32_MAX) return put_rare(w, dict, depth);
    if (put_head(w->writer, TAG_MAP, (uint32_t)size) < 0) return FAILED;
    while (PyDict_Next(dict, &place, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        int result = put_term(w, key, depth - 1);
        if (result == DONE) result = put_term(w, value, depth - 1);
        Py_DECREF(key);
        Py_DECREF(value);
        if (result != DONE) return result;
        if (PyDict_GET_SIZE(dict) != size || ++seen > size) return changed_meanwhile();
    }
    return seen == size ? DONE : changed_meanwhile();
}

static int put_term(Writing *w, PyObject *term, int depth) {
    PyTypeObject *type = Py_TYPE(term);
    if (type == &AtomType) return put_atom(w, (Atom *)term);
    if (type == &PyTuple_Type) return put_tuple(w, term, depth);
    if (type == &PidType) return put_pid(w, (Pid *)term, depth);
    if (type == &PyLong_Type) return put_integer(w, term, depth);
    if (type == &PyBytes_Type && (uint64_t)PyBytes_GET_SIZE(term) <= UINT32_MAX)
        return put_binary(w, PyBytes_AS_STRING(term), PyBytes_GET_SIZE(term));
    if (type == &PyList_Type) return put_list(w, term, depth);
    if (type == &ReferenceType) return put_reference(w, (Reference *)term, depth);
    if (term == Py_None) return put_atom(w, (Atom *)atom_nil);
    if (type == &PyBool_Type) return put_atom(w, (Atom *)(term == Py_True ? atom_true : atom_false));
    if (type == &PyUnicode_Type) return put_text(w, term, depth);
    if (type == &PyFloat_Type) {
        double number = PyFloat_AS_DOUBLE(term);
        uint8_t *place = reserve(w->writer, 9);
        if (place == NULL || (number - number == 0.0 && PyFloat_Pack8(number, (char *)place + 1, 0) < 0)) return FAILED;
        if (number - number == 0.0) {
            place[0] = TAG_NEW_FLOAT;
            w->writer->size += 9;
            return DONE;
        }
    }
    if (type == &PyDict_Type) return put_dict(w, term, depth);
    if ((PyObject *)type == improper_list) return put_improper_list(w, term, depth);
    return put_rare(w, term, depth);
}

/* ---- the type */

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"no_records", NULL};
    PyObject *no_records = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|U:TermWriter", names, &no_records)) return NULL;
    TermWriter *self = PyObject_New(TermWriter, type);
    if (self == NULL) return NULL;
    self->bytes = NULL;
    self->size = self->room = 0;
    self->no_records = no_records == NULL ? PyUnicode_FromString("") : Py_NewRef(no_records);
    if (self->no_records == NULL) Py_CLEAR(self);
    return (PyObject *)self;
}

static void writer_dealloc(TermWriter *self) {
    PyMem_Free(self->bytes);
    Py_XDECREF(self->no_records);
    PyObject_Free(self);
}

static Py_ssize_t writer_length(TermWriter *self) { return self->size; }

static PyObject *writer_write(TermWriter *self, PyObject *data) {
    if (!PyBytes_Check(data)) {
        PyErr_Format(PyExc_TypeError, "write() takes bytes, not %.100s", Py_TYPE(data)->tp_name);
        return NULL;
    }
    if (put_bytes(self, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) < 0) return NULL;
    Py_RETURN_NONE;
}

/* Put back what write_term() has changed: the buffer had `size` bytes, and `refs` `known` atoms. */
static int undo(TermWriter *self, Py_ssize_t size, PyObject *refs, Py_ssize_t known) {
    if (self->size > size) self->size = size;
    while (refs != NULL && PyDict_GET_SIZE(refs) > known) {
        PyObject *last = PyObject_CallMethod(refs, "popitem", NULL);
        if (last == NULL) return FAILED;
        Py_DECREF(last);
    }
    return DONE;
}

/* The same with an exception under way, which is kept. */
static PyObject *undo_and_fail(TermWriter *self, Py_ssize_t size, PyObject *refs, Py_ssize_t known) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (undo(self, size, refs, known) == DONE) {
        PyErr_Restore(type, value, traceback);
    } else {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    return NULL;
}

/* Append a term, if need be by the way with an explicit stack. After a failure the caller undoes what was done. */
static int put_whole(Writing *w, PyObject *term, Py_ssize_t max_depth) {
    TermWriter *self = w->writer;
    Py_ssize_t size = self->size;
    Py_ssize_t known = w->refs == NULL ? 0 : PyDict_GET_SIZE(w->refs);
    int result = put_term(w, term, max_depth < FAST_DEPTH ? (int)max_depth : FAST_DEPTH);
    if (result != TOO_DEEP) return result;
    memset(w->memo, 0, sizeof w->memo);
    if (undo(self, size, w->refs, known) < 0) return FAILED;
    PyObject *whole = PyObject_CallFunction(encode_deep, "OOnO", term, w->refs == NULL ? Py_None : w->refs, max_depth,
                                            self->no_records);
    result = whole == NULL || !PyBytes_Check(whole)
                 ? FAILED
                 : put_bytes(self, PyBytes_AS_STRING(whole), PyBytes_GET_SIZE(whole));
    Py_XDECREF(whole);
    return result;
}

static PyObject *writer_write_term(TermWriter *self, PyObject *const *args, Py_ssize_t given) {
    if (given < 1 || given > 3) {
        PyErr_Format(PyExc_TypeError, "write_term() takes 1 to 3 arguments, not %zd", given);
        return NULL;
    }
    PyObject *term = args[0];
    PyObject *refs = given > 1 && args[1] != Py_None ? args[1] : NULL;
    Py_ssize_t max_depth = given > 2 ? PyLong_AsSsize_t(args[2]) : MAX_DEPTH;
    if (refs != NULL && !PyDict_CheckExact(refs)) {
        PyErr_Format(PyExc_TypeError, "refs is a dict, or None, not %.100s", Py_TYPE(refs)->tp_name);
        return NULL;
    }
    if (max_depth == -1 && PyErr_Occurred()) return NULL;
    Py_ssize_t size = self->size;
    Py_ssize_t known = refs == NULL ? 0 : PyDict_GET_SIZE(refs);
    Writing writing = {.writer = self, .refs = refs};
    if (put_whole(&writing, term, max_depth) < 0) return undo_and_fail(self, size, refs, known);
    Py_RETURN_NONE;
}

static PyObject *writer_write_frame(TermWriter *self, PyObject *const *args, Py_ssize_t given) {
    if ((given != 4 && given != 5) || !PyBytes_Check(args[0]) || PyBytes_GET_SIZE(args[0]) < 4 ||
        !PyDict_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "write_frame() takes bytes, dict, limit, and one or two terms");
        return NULL;
    }
    PyObject *prefix = args[0], *refs = args[1];
    Py_ssize_t limit = PyLong_AsSsize_t(args[2]);
    if (limit == -1 && PyErr_Occurred()) return NULL;
    Py_ssize_t start = self->size, behind_first = 0;
    Py_ssize_t known = PyDict_GET_SIZE(refs);
    Writing writing = {.writer = self, .refs = refs};
    int result = put_bytes(self, PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix));
    for (Py_ssize_t i = 3; i < given && result == DONE; i++) {
        result = put_whole(&writing, args[i], MAX_DEPTH);
        behind_first = i == 3 ? self->size : behind_first;
    }
    if (result == DONE && self->size < start + 4) result = changed_meanwhile();
    if (result != DONE) return undo_and_fail(self, start, refs, known);
    Py_ssize_t size = self->size - start - 4;
    if (size > limit || PyDict_GET_SIZE(refs) != known) return PyLong_FromSsize_t(behind_first);
    store_u32(self->bytes + start, (uint32_t)size);
    return PyLong_FromLong(0);
}

static PyObject *writer_patch_u32(TermWriter *self, PyObject *const *args, Py_ssize_t given) {
    if (given != 2) {
        PyErr_Format(PyExc_TypeError, "patch_u32() takes 2 arguments, not %zd", given);
        return NULL;
    }
    Py_ssize_t position = PyLong_AsSsize_t(args[0]);
    unsigned long long value = PyLong_AsUnsignedLongLongMask(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (position < 0 || position > self->size - 4) {
        PyErr_Format(PyExc_IndexError, "no four bytes at %zd: %zd are held", position, self->size);
        return NULL;
    }
    store_u32(self->bytes + position, (uint32_t)value);
    Py_RETURN_NONE;
}

static PyObject *writer_truncate(TermWriter *self, PyObject *argument) {
    Py_ssize_t size = PyLong_AsSsize_t(argument);
    if (size < 0) {
        if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "a buffer has no size of %zd", size);
        return NULL;
    }
    if (size < self->size) self->size = size;
    Py_RETURN_NONE;
}

static PyObject *writer_getvalue(TermWriter *self, PyObject *Py_UNUSED(ignored)) {
    return PyBytes_FromStringAndSize((const char *)self->bytes, self->size);
}

static PyObject *writer_take(TermWriter *self, PyObject *ignored) {
    PyObject *data = writer_getvalue(self, ignored);
    if (data != NULL) self->size = 0;
    return data;
}

static PyMethodDef writer_methods[] = {
    {"write", (PyCFunction)writer_write, METH_O, NULL},
    {"write_term", (PyCFunction)(void (*)(void))writer_write_term, METH_FASTCALL, NULL},
    {"write_frame", (PyCFunction)(void (*)(void))writer_write_frame, METH_FASTCALL, NULL},
    {"patch_u32", (PyCFunction)(void (*)(void))writer_patch_u32, METH_FASTCALL, NULL},
    {"truncate", (PyCFunction)writer_truncate, METH_O, NULL},
    {"getvalue", (PyCFunction)writer_getvalue, METH_NOARGS, NULL},
    {"take", (PyCFunction)writer_take, METH_NOARGS, NULL},
    {NULL},
};
static PySequenceMethods writer_sequence = {.sq_length = (lenfunc)writer_length};
static PyTypeObject TermWriterType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "erlang_interop.etf._encode.TermWriter",
    .tp_basicsize = sizeof(TermWriter),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "TermWriter(no_records='')\n--\n\nA growing buffer for frames; see erlang_interop.etf._encode.",
    .tp_new = writer_new,
    .tp_dealloc = (destructor)writer_dealloc,
    .tp_as_sequence = &writer_sequence,
    .tp_methods = writer_methods,
};

/* --------------------------------------------------------------------------------------------------------- the module
 */

static PyMethodDef functions[] = {
    {"bind", (PyCFunction)(void (*)(void))bind, METH_FASTCALL | METH_KEYWORDS, bind_doc},
    {"decode_terms", (PyCFunction)(void (*)(void))decode_terms, METH_FASTCALL, decode_terms_doc},
    {"read_frames", (PyCFunction)(void (*)(void))read_frames, METH_FASTCALL, read_frames_doc},
    {NULL},
};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,  .m_name = "erlang_interop._core", .m_doc = "Identifiers and codec in C; see _core.c.",
    .m_size = -1, /* static types and tables: one of it in a process */
    .m_methods = functions,
};

/* Make a type ready, name its constructor's arguments and put it into the module. */
static int add_type(PyObject *module, PyTypeObject *type, const char *name, const char *match_args) {
    if (PyType_Ready(type) < 0 || PyModule_AddObjectRef(module, name, (PyObject *)type) < 0) return -1;
    if (match_args == NULL) return 0;
    PyObject *text = PyUnicode_FromString(match_args);
    PyObject *parts = text == NULL ? NULL : PyUnicode_Split(text, NULL, -1);
    PyObject *names = parts == NULL ? NULL : PyList_AsTuple(parts);
    int failed = names == NULL || PyDict_SetItemString(type->tp_dict, "__match_args__", names) < 0;
    PyType_Modified(type);
    Py_XDECREF(text);
    Py_XDECREF(parts);
    Py_XDECREF(names);
    return failed ? -1 : 0;
}

PyMODINIT_FUNC PyInit__core(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    if (add_type(module, &AtomType, "Atom", "name") < 0 ||
        add_type(module, &PidType, "Pid", "node id serial creation") < 0 ||
        add_type(module, &PortType, "Port", "node id creation") < 0 ||
        add_type(module, &ReferenceType, "Reference", "node creation words") < 0 ||
        add_type(module, &TermWriterType, "TermWriter", NULL) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
