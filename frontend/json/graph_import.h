/// Copies an entry of one module into a graph of another: how an ONNX file becomes an expert.
#ifndef PM_FRONTEND_JSON_GRAPH_IMPORT_H
#define PM_FRONTEND_JSON_GRAPH_IMPORT_H

#include "ir/builder.h"

/// Appends the ops of `from` (an entry without states, of another module) at `b`. `args`: one value
/// for each argument of `from`; the symbols of its types are bound to the extents of these. `results`
/// receives the values that stand for from's results. Types are inferred anew, so extents that `from`
/// takes for symbols may be constants here. Locations keep their places.
/// Errors: an argument of another element type or rank, extents that contradict each other.
PM_NODISCARD pm_status pm_graph_import(pm_builder *b, const pm_graph *from, pm_value *const *args,
                                       pm_value **results);

#endif
