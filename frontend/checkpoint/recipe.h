/// Recipes: what a family of models computes, as data. docs/recipes.md is their manual.
///
/// A recipe is a JSON file of frontend/checkpoint/recipes/, carried inside the compiler. It says which
/// checkpoints it reads (model_types), how config.json becomes named parameters, and which steps
/// compute the logits from which tensors.
#ifndef PM_FRONTEND_CHECKPOINT_RECIPE_H
#define PM_FRONTEND_CHECKPOINT_RECIPE_H

#include "frontend/checkpoint/recipe_expr.h"

enum { PM_RECIPE_MAX_SETS = 4 };

typedef struct pm_recipe {
    const char *name;
    const char *file; ///< for messages about the recipe itself
    const pm_json *root;
    const pm_json *begin, *layer, *end; ///< lists of steps
    const pm_json *encoder; ///< NULL, or an object with begin, layer, end, memory and layers (a count)
    const char *parts_file;
    const pm_json *parts; ///< by name: steps that recipes share
    const pm_json *harmless; ///< patterns
    /// Objects with params, require and ignore: the sets that the recipe names, then the recipe itself.
    const pm_json *sources[PM_RECIPE_MAX_SETS + 1];
    const char *source_files[PM_RECIPE_MAX_SETS + 1];
    size_t n_sources;
} pm_recipe;

/// The part of that name; NULL when there is none.
const pm_json *pm_recipe_part(const pm_recipe *recipe, const char *name);

/// Whether there is a recipe for a model type.
bool pm_recipe_reads(pm_arena *arena, const char *model_type);
/// Keys of configurations that say nothing about numbers.
bool pm_recipe_is_harmless(const pm_recipe *recipe, const char *key);
/// The i-th embedded recipe.
PM_NODISCARD pm_status pm_recipe_parse(pm_arena *arena, pm_diag *diag, size_t i,
                                       const pm_recipe **out_recipe);

/// The recipe for a model type; `loc` is the place of that name. Errors: PM_ERR_UNSUPPORTED, with the
/// nearest known type.
PM_NODISCARD pm_status pm_recipe_find(pm_arena *arena, pm_diag *diag, const pm_loc *loc,
                                      const char *model_type, const pm_recipe **out_recipe);

/// Sets a name in `scope` for each parameter of the recipe, from the configuration.
/// Errors: a key that is missing, of the wrong kind, out of range or of a value that the recipe
/// doesn't cover, each with its place in `config_file`.
PM_NODISCARD pm_status pm_recipe_params(const pm_recipe *recipe, pm_expr_scope *scope,
                                        const char *config_file, const pm_json *config);

/// The embedded files, for tests: name and text of the i-th, false beyond the last.
bool pm_recipe_at(size_t i, const char **out_name, const char **out_text, size_t *out_size);

#endif
