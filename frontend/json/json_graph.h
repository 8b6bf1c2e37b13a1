/// Inside of the JSON graph importer: documents, graphs being built, constants. The format's manual is
/// docs/json-graph.md, its schema docs/json-graph.schema.json.
#ifndef PM_FRONTEND_JSON_JSON_GRAPH_H
#define PM_FRONTEND_JSON_JSON_GRAPH_H

#include "base/json.h"
#include "ir/builder.h"

/// One document.
typedef struct pm_jdoc {
    pm_arena *scratch; ///< dies when the import ends
    pm_diag *diag;
    pm_module *module;
    const char *path, *dir;
    const pm_json *root;
    pm_map constants; ///< of the document: seen from every graph, made where they are used
    pm_map sets;      ///< by folder or file: pm_safetensors *, opened before
} pm_jdoc;

/// A graph of the document while it is built: an entry, or a region.
typedef struct pm_jgraph {
    pm_jdoc *doc;
    pm_builder b;
    pm_map constants; ///< its own, by name: const pm_json *
    pm_map values;    ///< pm_value * by name
} pm_jgraph;

// ---- json_graph.c ----

/// Fills `graph` (which has its arguments already, by the names in `values`) with nodes, and finds the
/// values of "outputs".
PM_NODISCARD pm_status pm_jgraph_body(pm_jgraph *g, const pm_json *json);
/// Adds the arguments that "inputs" lists.
PM_NODISCARD pm_status pm_jgraph_inputs(pm_jgraph *g, const pm_json *json);
/// Begins a graph; `constants` are its own, or NULL.
PM_NODISCARD pm_status pm_jgraph_start(pm_jgraph *g, pm_jdoc *doc, pm_graph *graph,
                                       const pm_json *constants);
/// The value that a JSON string names, or that an object describes as a constant in place.
PM_NODISCARD pm_status pm_jgraph_value(pm_jgraph *g, const pm_json *json, pm_value **out);
PM_NODISCARD pm_status pm_jgraph_define(pm_jgraph *g, const pm_json *name, pm_value *value);
/// Location of the op that `json` describes.
void pm_jgraph_set_loc(pm_jgraph *g, const pm_json *json, const char *name, const char *op);
PM_PRINTF(4, 5)
pm_status pm_jdoc_error(pm_jdoc *doc, const pm_json *at, pm_status code, const char *fmt, ...);
/// Errors for a key that isn't among the words of `allowed` (" a b c "), naming the nearest.
PM_NODISCARD pm_status pm_jdoc_keys(pm_jdoc *doc, const pm_json *object, const char *allowed);
/// A required member of a kind.
PM_NODISCARD pm_status pm_jdoc_get(pm_jdoc *doc, const pm_json *object, const char *key,
                                   pm_json_kind kind, const pm_json **out);
/// Dims written as integers and names of symbols.
PM_NODISCARD pm_status pm_jdoc_dims(pm_jdoc *doc, const pm_json *list, int32_t *out_rank,
                                    pm_dim *out_dims);

// ---- json_const.c ----

PM_NODISCARD pm_status pm_jgraph_const(pm_jgraph *g, const pm_json *json, const char *name,
                                       pm_value **out);

// ---- json_compose.c ----

/// The node "compose": a router and experts of any kind.
PM_NODISCARD pm_status pm_jgraph_compose(pm_jgraph *g, const pm_json *node);

#endif
