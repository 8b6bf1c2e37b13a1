#include "frontend/checkpoint/recipe.h"

#include <inttypes.h>
#include <math.h>

#include "base/str.h"

typedef struct embedded {
    const char *name;
    const unsigned char *text;
    size_t size;
} embedded;

#include "frontend/checkpoint/parts.inc"   // embedded_parts[]
#include "frontend/checkpoint/recipes.inc" // embedded_recipes[], made by cmake/embed.cmake

bool pm_recipe_at(size_t i, const char **out_name, const char **out_text, size_t *out_size)
{
    if (i >= PM_COUNT(embedded_recipes))
        return false;
    *out_name = embedded_recipes[i].name;
    *out_text = (const char *)embedded_recipes[i].text;
    *out_size = embedded_recipes[i].size;
    return true;
}

static pm_status check_recipe(pm_diag *diag, pm_recipe *recipe)
{
    static const char *const keys[] = {"recipe",  "about", "model_types", "sets", "params",
                                       "require", "begin", "layer",       "end",  "ignore",
                                       "encoder", "quantised"};
    const pm_json *root = recipe->root;
    for (size_t i = 0; i < root->n; i++) {
        bool is_known = false;
        for (size_t k = 0; k < PM_COUNT(keys); k++)
            is_known = is_known || strcmp(root->keys[i], keys[k]) == 0;
        pm_loc loc = pm_json_loc(recipe->file, &root->items[i]);
        if (!is_known)
            return pm_error(diag, &loc, PM_ERR_INTERNAL, "unknown key '%s' in a recipe",
                            root->keys[i]);
    }
    const pm_json *lists[] = {recipe->begin = pm_json_get(root, "begin"),
                              recipe->layer = pm_json_get(root, "layer"),
                              recipe->end = pm_json_get(root, "end")};
    pm_loc loc = pm_json_loc(recipe->file, root);
    PM_TRY(pm_json_get_str(diag, recipe->file, root, "recipe", true, &recipe->name));
    for (size_t i = 0; i < PM_COUNT(lists); i++)
        if (lists[i] == NULL || lists[i]->kind != PM_JSON_ARRAY)
            return pm_error(diag, &loc, PM_ERR_INTERNAL, "a recipe needs begin, layer and end");
    static const char *const encoder_keys[] = {"begin", "layer", "end", "memory"};
    recipe->encoder = pm_json_get(root, "encoder");
    for (size_t i = 0; recipe->encoder != NULL && i < PM_COUNT(encoder_keys); i++) {
        const pm_json *list = pm_json_get(recipe->encoder, encoder_keys[i]);
        if (list == NULL || list->kind != PM_JSON_ARRAY)
            return pm_error(diag, &loc, PM_ERR_INTERNAL, "an encoder needs '%s'", encoder_keys[i]);
    }
    return PM_OK;
}

/// Reads the shared parts, and finds the sets that the recipe names.
static pm_status add_sources(pm_arena *arena, pm_diag *diag, pm_recipe *recipe)
{
    const pm_json *shared, *names = pm_json_get(recipe->root, "sets");
    recipe->parts_file = "recipe parts";
    PM_TRY(pm_json_parse(arena, diag, recipe->parts_file, (const char *)embedded_parts[0].text,
                         embedded_parts[0].size, &shared));
    recipe->parts = pm_json_get(shared, "parts");
    recipe->harmless = pm_json_get(shared, "harmless");
    for (size_t i = 0; names != NULL && i < names->n; i++) {
        const pm_json *set = pm_json_get(pm_json_get(shared, "sets"), names->items[i].string);
        pm_loc loc = pm_json_loc(recipe->file, &names->items[i]);
        if (set == NULL || recipe->n_sources == PM_RECIPE_MAX_SETS)
            return pm_error(diag, &loc, PM_ERR_INTERNAL, "no set '%s' of parameters, or too many",
                            names->items[i].string);
        recipe->source_files[recipe->n_sources] = recipe->parts_file;
        recipe->sources[recipe->n_sources++] = set;
    }
    recipe->source_files[recipe->n_sources] = recipe->file;
    recipe->sources[recipe->n_sources++] = recipe->root;
    return PM_OK;
}

const pm_json *pm_recipe_part(const pm_recipe *recipe, const char *name)
{
    return pm_json_get(recipe->parts, name);
}

static bool handles(const pm_json *types, const char *model_type)
{
    for (size_t i = 0; types != NULL && i < types->n; i++)
        if (types->items[i].kind == PM_JSON_STRING &&
            strcmp(types->items[i].string, model_type) == 0)
            return true;
    return false;
}

bool pm_recipe_is_harmless(const pm_recipe *recipe, const char *key)
{
    for (size_t i = 0; recipe->harmless != NULL && i < recipe->harmless->n; i++) {
        const char *known = recipe->harmless->items[i].string;
        size_t n = strlen(known), length = strlen(key);
        if (known[0] == '*' ? length >= n - 1 && strcmp(key + length - (n - 1), known + 1) == 0
                            : strcmp(key, known) == 0)
            return true;
    }
    return false;
}

bool pm_recipe_reads(pm_arena *arena, const char *model_type)
{
    const pm_recipe *recipe;
    return pm_recipe_find(arena, pm_diag_create(arena), NULL, model_type, &recipe) == PM_OK;
}

pm_status pm_recipe_parse(pm_arena *arena, pm_diag *diag, size_t i, const pm_recipe **out_recipe)
{
    const embedded *e = &embedded_recipes[i];
    const char *file = pm_arena_printf(arena, "recipe %s", e->name);
    const pm_json *root;
    *out_recipe = NULL;
    PM_TRY(pm_json_parse(arena, diag, file, (const char *)e->text, e->size, &root));
    pm_recipe *recipe = PM_NEW(arena, pm_recipe);
    *recipe = (pm_recipe){.name = e->name, .file = file, .root = root};
    PM_TRY(check_recipe(diag, recipe));
    PM_TRY(add_sources(arena, diag, recipe));
    *out_recipe = recipe;
    return PM_OK;
}

pm_status pm_recipe_find(pm_arena *arena, pm_diag *diag, const pm_loc *loc, const char *model_type,
                         const pm_recipe **out_recipe)
{
    *out_recipe = NULL;
    PM_VEC(const char *) known = {0};
    for (size_t i = 0; i < PM_COUNT(embedded_recipes); i++) {
        const embedded *e = &embedded_recipes[i];
        const pm_json *root;
        PM_TRY(pm_json_parse(arena, diag, e->name, (const char *)e->text, e->size, &root));
        const pm_json *types = pm_json_get(root, "model_types");
        if (handles(types, model_type))
            return pm_recipe_parse(arena, diag, i, out_recipe);
        for (size_t k = 0; types != NULL && k < types->n; k++)
            PM_PUSH(arena, &known, types->items[k].string);
    }
    pm_status status = pm_error(diag, loc, PM_ERR_UNSUPPORTED,
                                "no recipe for models of type '%.100s'", model_type);
    const char *near = pm_nearest(model_type, known.data, known.n);
    pm_str list = pm_str_new(arena);
    for (size_t i = 0; i < known.n; i++)
        pm_str_printf(&list, "%s%s", i > 0 ? ", " : "", known.data[i]);
    if (near != NULL)
        pm_note(diag, loc, "did you mean '%s'?", near);
    pm_note(diag, loc, "there are recipes for: %s", list.data);
    return status;
}

// ---- parameters ----

typedef struct reader {
    const pm_recipe *recipe;
    pm_expr_scope *scope;
    const char *file; ///< of the configuration
    const pm_json *config;
    const char *name; ///< of the parameter
    const pm_json *spec;
    pm_loc recipe_loc;
    const char *key;         ///< under which the value was found
    const pm_json *value;    ///< NULL: absent
} reader;

/// The member at a dotted path.
static const pm_json *lookup(const pm_json *object, const char *path)
{
    char part[64];
    for (;;) {
        size_t n = strcspn(path, ".");
        if (n >= sizeof part)
            return NULL;
        memcpy(part, path, n);
        part[n] = '\0';
        object = pm_json_get(object, part);
        if (object == NULL || path[n] == '\0')
            return object != NULL && object->kind == PM_JSON_NULL ? NULL : object;
        path += n + 1;
    }
}

static void find_value(reader *r)
{
    const pm_json *key = pm_json_get(r->spec, "key");
    size_t n = key == NULL ? 0 : key->kind == PM_JSON_ARRAY ? key->n : 1;
    r->value = NULL;
    for (size_t i = 0; i < n && r->value == NULL; i++) {
        r->key = key->kind == PM_JSON_ARRAY ? key->items[i].string : key->string;
        r->value = lookup(r->config, r->key);
    }
    if (r->value == NULL && n > 0)
        r->key = key->kind == PM_JSON_ARRAY ? key->items[0].string : key->string;
}

static pm_loc value_loc(const reader *r)
{
    pm_loc loc = {.file = r->file};
    if (r->value != NULL)
        loc = pm_json_loc(r->file, r->value);
    loc.what = "key";
    loc.name = r->key;
    return loc;
}

/// The value in words, for messages.
static const char *value_text(const reader *r, pm_expr_value v)
{
    if (v.kind == PM_EXPR_STRING)
        return pm_arena_printf(r->scope->arena, "'%.100s'", v.string);
    if (v.kind == PM_EXPR_NUMBER)
        return pm_arena_printf(r->scope->arena, "%.17g", v.number);
    return v.kind == PM_EXPR_LIST ? "a list" : v.kind == PM_EXPR_OBJECT ? "an object" : "null";
}

/// `in`: the values that the recipe covers.
static pm_status check_in(const reader *r, pm_expr_value v)
{
    const pm_json *in = pm_json_get(r->spec, "in");
    if (in == NULL)
        return PM_OK;
    pm_str list = pm_str_new(r->scope->arena);
    for (size_t i = 0; i < in->n; i++) {
        pm_expr_value one = pm_expr_from_json(&in->items[i]);
        if (one.kind == v.kind &&
            (one.kind == PM_EXPR_NULL || (one.kind == PM_EXPR_NUMBER && one.number == v.number) ||
             (one.kind == PM_EXPR_STRING && strcmp(one.string, v.string) == 0)))
            return PM_OK;
        pm_str_printf(&list, "%s%s", i > 0 ? ", " : "", value_text(r, one));
    }
    pm_loc loc = value_loc(r);
    return pm_error(r->scope->diag, &loc, PM_ERR_UNSUPPORTED,
                    "%s is %s; the recipe '%s' covers %s", r->key, value_text(r, v),
                    r->recipe->name, list.data);
}

static pm_status check_kind(const reader *r, pm_expr_value v, const char *kind)
{
    pm_loc loc = value_loc(r);
    pm_diag *diag = r->scope->diag;
    bool is_json_bool = r->value != NULL && r->value->kind == PM_JSON_BOOL;
    if (strcmp(kind, "any") == 0)
        return PM_OK;
    if (strcmp(kind, "string") == 0 || strcmp(kind, "list") == 0 || strcmp(kind, "object") == 0) {
        pm_expr_kind want = kind[0] == 's'   ? PM_EXPR_STRING
                            : kind[0] == 'l' ? PM_EXPR_LIST
                                             : PM_EXPR_OBJECT;
        if (v.kind == want || (v.kind == PM_EXPR_NULL && r->value == NULL))
            return PM_OK;
        return pm_error(diag, &loc, PM_ERR_INVALID, "%s must be a %s", r->key, kind);
    }
    if (strcmp(kind, "bool") == 0) {
        if (r->value == NULL || is_json_bool)
            return PM_OK;
        return pm_error(diag, &loc, PM_ERR_INVALID, "%s must be true or false", r->key);
    }
    double lo = kind[0] == 'i' ? 1 : -INFINITY, hi = kind[0] == 'i' ? INT32_MAX : INFINITY;
    PM_TRY(pm_json_get_f64(diag, r->recipe->file, r->spec, "min", false, &lo));
    PM_TRY(pm_json_get_f64(diag, r->recipe->file, r->spec, "max", false, &hi));
    const char *what = r->key != NULL ? r->key : r->name;
    if (v.kind != PM_EXPR_NUMBER || is_json_bool)
        return pm_error(diag, &loc, PM_ERR_INVALID, "%s must be a number", what);
    if (kind[0] == 'i' && v.number != floor(v.number))
        return pm_error(diag, &loc, PM_ERR_INVALID, "%s is %g, must be an integer", what, v.number);
    if (!(v.number >= lo && v.number <= hi))
        return pm_error(diag, &loc, PM_ERR_INVALID, "%s is %.17g, must be in [%g, %g]", what,
                        v.number, lo, hi);
    return PM_OK;
}

static pm_status read_param(reader *r)
{
    const char *kind = "int", *is = NULL, *fallback = NULL;
    pm_diag *diag = r->scope->diag;
    PM_TRY(pm_json_get_str(diag, r->recipe->file, r->spec, "kind", false, &kind));
    PM_TRY(pm_json_get_str(diag, r->recipe->file, r->spec, "is", false, &is));
    PM_TRY(pm_json_get_str(diag, r->recipe->file, r->spec, "default", false, &fallback));
    find_value(r);
    pm_expr_value v = pm_expr_from_json(r->value);
    if (r->value == NULL) {
        const char *text = is != NULL ? is : fallback;
        pm_loc loc = value_loc(r);
        if (text == NULL)
            return pm_error(diag, &loc, PM_ERR_INVALID, "the key '%s' is missing", r->key);
        PM_TRY(pm_expr_eval(r->scope, &r->recipe_loc, text, &v));
    }
    PM_TRY(check_kind(r, v, kind));
    PM_TRY(check_in(r, v));
    pm_expr_set(r->scope, r->name, v);
    return PM_OK;
}

/// `require`: conditions between parameters.
static pm_status check_require(const char *recipe_file, const pm_json *require,
                               pm_expr_scope *scope, const char *file)
{
    for (size_t i = 0; require != NULL && i < require->n; i++) {
        const pm_json *item = &require->items[i];
        pm_loc loc = pm_json_loc(recipe_file, item), config = {.file = file};
        const char *that, *otherwise;
        bool holds;
        PM_TRY(pm_json_get_str(scope->diag, recipe_file, item, "that", true, &that));
        PM_TRY(pm_json_get_str(scope->diag, recipe_file, item, "else", true, &otherwise));
        PM_TRY(pm_expr_bool(scope, &loc, that, &holds));
        if (!holds)
            return pm_error(scope->diag, &config, PM_ERR_UNSUPPORTED, "%s", otherwise);
    }
    return PM_OK;
}

/// The parameter as the last source that has it says.
static pm_status read_named(const pm_recipe *recipe, pm_expr_scope *scope, const char *file,
                            const pm_json *config, const char *name)
{
    reader r = {.recipe = recipe, .scope = scope, .file = file, .config = config, .name = name};
    for (size_t i = 0; i < recipe->n_sources; i++) {
        const pm_json *spec = pm_json_get(pm_json_get(recipe->sources[i], "params"), name);
        if (spec == NULL)
            continue;
        r.spec = spec;
        r.recipe_loc = pm_json_loc(recipe->source_files[i], spec);
    }
    return read_param(&r);
}

pm_status pm_recipe_params(const pm_recipe *recipe, pm_expr_scope *scope, const char *config_file,
                           const pm_json *config)
{
    pm_expr_set_number(scope, "true", 1);
    pm_expr_set_number(scope, "false", 0);
    for (size_t i = 0; i < recipe->n_sources; i++) {
        const pm_json *params = pm_json_get(recipe->sources[i], "params");
        for (size_t k = 0; params != NULL && k < params->n; k++)
            if (pm_map_get_str(&scope->names, params->keys[k]) == NULL)
                PM_TRY(read_named(recipe, scope, config_file, config, params->keys[k]));
    }
    for (size_t i = 0; i < recipe->n_sources; i++)
        PM_TRY(check_require(recipe->source_files[i], pm_json_get(recipe->sources[i], "require"),
                             scope, config_file));
    return PM_OK;
}
