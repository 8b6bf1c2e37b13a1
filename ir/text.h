/// The text form of modules: docs/ir.md is its manual. parse(print(m)) == m.
#ifndef PM_IR_TEXT_H
#define PM_IR_TEXT_H

#include "ir/graph.h"

/// Prints the whole module. Constants of at most 64 elements are written out, larger inline ones as
/// hex; those in files as file("path", offset, size).
void pm_module_print(const pm_module *m, FILE *out);
/// Prints one graph (as it would stand in the module).
void pm_graph_print(const pm_graph *g, FILE *out);

/// Parses a module; verifies it. `dir`: the folder beneath which files named in it are opened.
PM_NODISCARD pm_status pm_module_parse(pm_arena *arena, pm_diag *diag, const char *file,
                                       const char *text, size_t size, const char *dir,
                                       pm_module **out_module);

/// Checks structure (SSA, types, arity, locations, regions) and each op's own rules.
/// Reports all faults found (up to the sink's limit); PM_ERR_INVALID when there is one.
PM_NODISCARD pm_status pm_module_verify(const pm_module *m);

#endif
