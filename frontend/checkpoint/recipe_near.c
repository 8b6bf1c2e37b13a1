/// For a family that no recipe knows: which one comes nearest, and what it lacks.
#include <inttypes.h>

#include "base/str.h"
#include "frontend/checkpoint/checkpoint_build.h"

enum { SHOWN = 6, MAX_DEPTH = 24 };

typedef PM_VEC(const char *) names;

/// What a recipe says, as patterns in which a star stands for anything, and as keys.
typedef struct outline {
    pm_arena *arena;
    const pm_recipe *recipe;
    names tensors, keys, needed; ///< needed: keys without a default
    pm_map parts;                ///< that were looked at
    size_t n_placed;             ///< tensors of the checkpoint that match
    size_t n_odd;                ///< keys that only one side has
} outline;

// ---- what a recipe says ----

/// "{at}.q_proj.weight" becomes "*.q_proj.weight".
static const char *pattern_of(pm_arena *arena, const char *template)
{
    pm_str out = pm_str_new(arena);
    while (*template != '\0') {
        const char *close = *template == '{' ? strchr(template, '}') : NULL;
        pm_str_add_n(&out, close != NULL ? "*" : template, 1);
        template = close != NULL ? close + 1 : template + 1;
    }
    return out.data;
}

/// A word with letters on both sides of a dot, and no space, is taken for a tensor's name.
static bool is_tensor_name(const char *text)
{
    const char *dot = strchr(text, '.');
    return dot != NULL && dot != text && dot[1] != '\0' && strpbrk(text, " '=()") == NULL &&
           strpbrk(text, "abcdefghijklmnopqrstuvwxyz") != NULL;
}

/// Walks steps and weights. The depth is that of our own files, and bounded all the same.
static void add_tensors(outline *o, const pm_json *json, int depth)
{
    if (json == NULL || depth > MAX_DEPTH)
        return;
    if (json->kind == PM_JSON_STRING && is_tensor_name(json->string))
        PM_PUSH(o->arena, &o->tensors, pattern_of(o->arena, json->string));
    if (json->kind != PM_JSON_ARRAY && json->kind != PM_JSON_OBJECT)
        return;
    const pm_json *use = json->kind == PM_JSON_OBJECT ? pm_json_get(json, "use") : NULL;
    if (use != NULL && use->kind == PM_JSON_STRING &&
        pm_map_get_str(&o->parts, use->string) == NULL) {
        pm_map_put_str(&o->parts, use->string, o);
        add_tensors(o, pm_json_get(pm_recipe_part(o->recipe, use->string), "steps"), depth + 1);
    }
    for (size_t i = 0; i < json->n; i++)
        add_tensors(o, &json->items[i], depth + 1);
}

static void add_keys(outline *o, const pm_json *params)
{
    for (size_t i = 0; params != NULL && i < params->n; i++) {
        const pm_json *key = pm_json_get(&params->items[i], "key");
        size_t n = key == NULL ? 0 : key->kind == PM_JSON_ARRAY ? key->n : 1;
        for (size_t k = 0; k < n; k++)
            PM_PUSH(o->arena, &o->keys, key->kind == PM_JSON_ARRAY ? key->items[k].string : key->string);
        if (n > 0 && pm_json_get(&params->items[i], "default") == NULL)
            PM_PUSH(o->arena, &o->needed, key->kind == PM_JSON_ARRAY ? key->items[0].string : key->string);
    }
}

static bool has_place(const outline *o, const char *tensor)
{
    for (size_t i = 0; i < o->tensors.n; i++)
        if (pm_ckpt_name_matches(o->tensors.data[i], tensor))
            return true;
    return false;
}

static void make_outline(outline *o, const pm_safetensors *set)
{
    pm_map_init(&o->parts, o->arena);
    for (size_t i = 0; i < o->recipe->n_sources; i++) {
        add_keys(o, pm_json_get(o->recipe->sources[i], "params"));
        add_tensors(o, pm_json_get(o->recipe->sources[i], "ignore"), 0);
    }
    add_tensors(o, o->recipe->begin, 0);
    add_tensors(o, o->recipe->layer, 0);
    add_tensors(o, o->recipe->end, 0);
    add_tensors(o, o->recipe->encoder, 0);
    for (size_t i = 0; i < set->tensors.n; i++)
        o->n_placed += has_place(o, set->tensors.entries[i].key);
}

// ---- what is said about it ----

/// "model.layers.12.mlp" becomes "model.layers.N.mlp": one line for all layers and experts.
static const char *without_numbers(pm_arena *arena, const char *name)
{
    pm_str out = pm_str_new(arena);
    while (*name != '\0') {
        size_t digits = strspn(name, "0123456789");
        bool is_part = digits > 0 && (name[digits] == '.' || name[digits] == '\0') &&
                       out.n > 0 && out.data[out.n - 1] == '.';
        pm_str_add_n(&out, is_part ? "N" : name, 1);
        name += is_part ? digits : 1;
    }
    return out.data;
}

/// Adds to a list of at most SHOWN different words.
static void list(pm_arena *arena, pm_map *seen, pm_str *text, const char *word)
{
    if (pm_map_get_str(seen, word) != NULL)
        return;
    pm_map_put_str(seen, pm_arena_strdup(arena, word), text);
    if (seen->n <= SHOWN)
        pm_str_printf(text, "%s%s", seen->n > 1 ? ", " : "", word);
    else if (seen->n == SHOWN + 1)
        pm_str_add(text, ", …");
}

static void note_tensors(const outline *o, pm_diag *diag, const pm_loc *loc, const pm_safetensors *set)
{
    pm_map seen;
    pm_str text = pm_str_new(o->arena);
    pm_map_init(&seen, o->arena);
    for (size_t i = 0; i < set->tensors.n; i++)
        if (!has_place(o, set->tensors.entries[i].key))
            list(o->arena, &seen, &text, without_numbers(o->arena, set->tensors.entries[i].key));
    if (seen.n > 0)
        pm_note(diag, loc, "tensors that have no place in it: %s", text.data);
}

static bool lacks(const outline *o, const pm_json *config, const char *key)
{
    return pm_json_get(config, pm_arena_strndup(o->arena, key, strcspn(key, "."))) == NULL;
}

static bool reads(const outline *o, const char *key)
{
    for (size_t i = 0; i < o->keys.n; i++) {
        size_t n = strcspn(o->keys.data[i], ".");
        if (strlen(key) == n && memcmp(key, o->keys.data[i], n) == 0)
            return true;
    }
    return pm_recipe_is_harmless(o->recipe, key);
}

/// How many keys of either side the other one doesn't have.
static size_t count_odd_keys(const outline *o, const pm_json *config)
{
    size_t n = 0;
    for (size_t i = 0; i < o->needed.n; i++)
        n += lacks(o, config, o->needed.data[i]);
    for (size_t i = 0; i < config->n; i++)
        n += !reads(o, config->keys[i]);
    return n;
}

/// Keys of the configuration that the recipe doesn't read, but for those that say nothing about numbers; and
/// those that it needs and that aren't there.
static void note_keys(const outline *o, pm_diag *diag, const pm_loc *loc, const pm_json *config)
{
    pm_map seen;
    pm_str text = pm_str_new(o->arena), lacking = pm_str_new(o->arena);
    pm_map_init(&seen, o->arena);
    for (size_t i = 0; i < config->n; i++)
        if (!reads(o, config->keys[i]))
            list(o->arena, &seen, &text, config->keys[i]);
    if (seen.n > 0)
        pm_note(diag, loc, "keys of config.json that it doesn't read: %s", text.data);
    pm_map_init(&seen, o->arena);
    for (size_t i = 0; i < o->needed.n; i++)
        if (lacks(o, config, o->needed.data[i]))
            list(o->arena, &seen, &lacking, o->needed.data[i]);
    if (seen.n > 0)
        pm_note(diag, loc, "keys that it needs and that aren't there: %s", lacking.data);
}

void pm_ckpt_explain_unknown(pm_ckpt *c, const pm_loc *loc, const pm_json *config)
{
    outline best = {0};
    pm_diag *aside = pm_diag_create(c->scratch); // what else is wrong with the folder isn't the question
    const char *name, *text;
    size_t size;
    if (pm_safetensors_open(c->module->arena, aside, c->folder, &c->tensors) != PM_OK)
        return;
    for (size_t i = 0; pm_recipe_at(i, &name, &text, &size); i++) {
        outline o = {.arena = c->scratch};
        if (pm_recipe_parse(c->scratch, aside, i, &o.recipe) != PM_OK)
            continue;
        make_outline(&o, c->tensors);
        o.n_odd = count_odd_keys(&o, config);
        if (best.recipe == NULL || o.n_placed > best.n_placed ||
            (o.n_placed == best.n_placed && o.n_odd < best.n_odd))
            best = o;
    }
    if (best.recipe == NULL || best.n_placed == 0)
        return;
    pm_note(c->diag, loc, "nearest by its tensors is the recipe '%s', which has a place for %zu of %zu of them",
            best.recipe->name, best.n_placed, c->tensors->tensors.n);
    note_tensors(&best, c->diag, loc, c->tensors);
    note_keys(&best, c->diag, loc, config);
}
