/// For a family that no recipe knows: which one comes nearest, and what it lacks.
#include <inttypes.h>

#include "base/str.h"
#include "frontend/checkpoint/checkpoint_build.h"

enum { SHOWN = 6, MAX_DEPTH = 24, MAX_ALTERNATIVES = 16 };

typedef PM_VEC(const char *) names;

/// What a recipe says, as patterns in which a star stands for anything, and as keys.
typedef struct outline {
    pm_arena *arena;
    const pm_recipe *recipe;
    names tensors, keys;
    PM_VEC(const pm_json *) needed; ///< keys without a default: a name, or some of which one is enough
    size_t n_placed;             ///< tensors of the checkpoint that match
    size_t n_odd;                ///< keys that only one side has
} outline;

// ---- what a recipe says ----

/// A name of a part or a let, and the expression that it stands for.
typedef struct binding {
    const char *name, *expression;
    const struct binding *outer; ///< bindings that the expression sees
    const struct binding *next;  ///< bound before
} binding;

static const binding *bound(const binding *b, const char *name, size_t n)
{
    while (b != NULL && (strlen(b->name) != n || memcmp(b->name, name, n) != 0))
        b = b->next;
    return b;
}

static names resolve(outline *o, const char *template, const binding *seen, int depth);

/// What an expression may be: a name stands for what it is bound to, and strings are templates themselves.
static names resolve_expression(outline *o, const char *expression, const binding *seen, int depth)
{
    names all = {0};
    const binding *other = bound(seen, expression, strlen(expression));
    if (depth < MAX_DEPTH && other != NULL)
        return resolve_expression(o, other->expression, other->outer, depth + 1);
    for (const char *open = strchr(expression, '\''), *close; open != NULL; open = strchr(close + 1, '\'')) {
        close = strchr(open + 1, '\'');
        if (close == NULL)
            break;
        const char *text = pm_arena_strndup(o->arena, open + 1, (size_t)(close - open - 1));
        names some = resolve(o, text, seen, depth + 1);
        for (size_t i = 0; i < some.n && all.n < MAX_ALTERNATIVES; i++)
            PM_PUSH(o->arena, &all, some.data[i]);
    }
    if (all.n == 0)
        PM_PUSH(o->arena, &all, "*");
    return all;
}

/// "{at}.q_proj.weight" is "model.layers.*.self_attn.q_proj.weight", once for each string that `at` may be.
static names resolve(outline *o, const char *template, const binding *seen, int depth)
{
    names all = {0};
    const char *open = strchr(template, '{'), *close = open != NULL ? strchr(open, '}') : NULL;
    if (close == NULL || depth > MAX_DEPTH) {
        PM_PUSH(o->arena, &all, template);
        return all;
    }
    const char *head = pm_arena_strndup(o->arena, template, (size_t)(open - template));
    const binding *b = bound(seen, open + 1, (size_t)(close - open - 1));
    names middle = {0}, tails = resolve(o, close + 1, seen, depth + 1);
    if (b != NULL)
        middle = resolve_expression(o, b->expression, b->outer, depth + 1);
    else
        PM_PUSH(o->arena, &middle, "*");
    for (size_t i = 0; i < middle.n; i++)
        for (size_t k = 0; k < tails.n && all.n < MAX_ALTERNATIVES; k++)
            PM_PUSH(o->arena, &all,
                    pm_arena_printf(o->arena, "%s%s%s", head, middle.data[i], tails.data[k]));
    return all;
}

/// Patterns of nothing but stars would match everything.
static void add_patterns(outline *o, const char *template, const binding *seen)
{
    names all = resolve(o, template, seen, 0);
    for (size_t i = 0; i < all.n; i++) {
        const char *rest = all.data[i] + strspn(all.data[i], "*.");
        if (*rest != '\0' && strcmp(rest, "weight") != 0 && strcmp(rest, "bias") != 0)
            PM_PUSH(o->arena, &o->tensors, all.data[i]);
    }
}

/// A word with letters on both sides of a dot, and no space, is taken for a tensor's name, or a template.
static bool is_tensor_name(const char *text)
{
    const char *dot = strchr(text, '.');
    if (text[0] == '{' && text[strcspn(text, "}")] == '}' && text[strcspn(text, "}") + 1] == '\0')
        return true; // the name that a part is given
    return dot != NULL && dot != text && dot[1] != '\0' && strpbrk(text, " '=()") == NULL &&
           strpbrk(text, "abcdefghijklmnopqrstuvwxyz") != NULL;
}

static const binding *bind(outline *o, const char *name, const pm_json *expression,
                           const binding *outer, const binding *before)
{
    binding *b = PM_NEW(o->arena, binding);
    bool is_text = expression->kind == PM_JSON_STRING;
    *b = (binding){name, is_text ? expression->string : "", outer, before};
    return b;
}

static void add_tensors(outline *o, const pm_json *json, const binding **seen, int depth);

/// The steps of a part, whose names stand for what the step gives, or for their defaults.
static void add_part(outline *o, const pm_json *step, const char *name, const binding *outer,
                     int depth)
{
    const pm_json *part = pm_recipe_part(o->recipe, name), *with = pm_json_get(step, "with");
    const pm_json *defaults = pm_json_get(part, "with");
    const binding *inner = outer;
    for (size_t i = 0; defaults != NULL && i < defaults->n; i++) {
        const pm_json *given = pm_json_get(with, defaults->keys[i]);
        inner = given != NULL ? bind(o, defaults->keys[i], given, outer, inner)
                              : bind(o, defaults->keys[i], &defaults->items[i], inner, inner);
    }
    add_tensors(o, pm_json_get(part, "steps"), &inner, depth + 1);
}

/// Walks steps and weights. The depth is that of our own files, and bounded all the same.
static void add_tensors(outline *o, const pm_json *json, const binding **seen, int depth)
{
    if (json == NULL || depth > MAX_DEPTH)
        return;
    if (json->kind == PM_JSON_STRING && is_tensor_name(json->string))
        add_patterns(o, json->string, *seen);
    if (json->kind != PM_JSON_ARRAY && json->kind != PM_JSON_OBJECT)
        return;
    const pm_json *use = json->kind == PM_JSON_OBJECT ? pm_json_get(json, "use") : NULL;
    const pm_json *name = json->kind == PM_JSON_OBJECT ? pm_json_get(json, "name") : NULL;
    const pm_json *is = json->kind == PM_JSON_OBJECT ? pm_json_get(json, "is") : NULL;
    if (use != NULL && use->kind == PM_JSON_STRING) {
        add_part(o, json, use->string, *seen, depth);
        return;
    }
    if (name != NULL && is != NULL && name->kind == PM_JSON_STRING)
        *seen = bind(o, name->string, is, *seen, *seen);
    for (size_t i = 0; i < json->n; i++)
        add_tensors(o, &json->items[i], seen, depth + 1);
}

/// The keys of one source's parameters, but for those that a later source replaces.
static void add_keys(outline *o, size_t source)
{
    const pm_json *params = pm_json_get(o->recipe->sources[source], "params");
    for (size_t i = 0; params != NULL && i < params->n; i++) {
        bool is_replaced = false;
        for (size_t k = source + 1; k < o->recipe->n_sources; k++)
            is_replaced |= pm_json_get(pm_json_get(o->recipe->sources[k], "params"), params->keys[i]) != NULL;
        if (is_replaced)
            continue;
        const pm_json *key = pm_json_get(&params->items[i], "key");
        size_t n = key == NULL ? 0 : key->kind == PM_JSON_ARRAY ? key->n : 1;
        for (size_t k = 0; k < n; k++)
            PM_PUSH(o->arena, &o->keys, key->kind == PM_JSON_ARRAY ? key->items[k].string : key->string);
        if (n > 0 && pm_json_get(&params->items[i], "default") == NULL)
            PM_PUSH(o->arena, &o->needed, key);
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
    const binding *seen = NULL;
    for (size_t i = 0; i < o->recipe->n_sources; i++)
        add_keys(o, i);
    add_tensors(o, o->recipe->begin, &seen, 0);
    add_tensors(o, o->recipe->layer, &seen, 0);
    add_tensors(o, o->recipe->end, &seen, 0);
    add_tensors(o, o->recipe->encoder, &seen, 0);
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

/// The first of the names when the configuration has none of them, else NULL.
static const char *lacking(const outline *o, const pm_json *config, const pm_json *key)
{
    size_t n = key->kind == PM_JSON_ARRAY ? key->n : 1;
    for (size_t i = 0; i < n; i++) {
        const char *name = key->kind == PM_JSON_ARRAY ? key->items[i].string : key->string;
        if (pm_json_get(config, pm_arena_strndup(o->arena, name, strcspn(name, "."))) != NULL)
            return NULL;
    }
    return key->kind == PM_JSON_ARRAY ? key->items[0].string : key->string;
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
        n += lacking(o, config, o->needed.data[i]) != NULL;
    for (size_t i = 0; i < config->n; i++)
        n += !reads(o, config->keys[i]);
    return n;
}

/// Keys of the configuration that the recipe doesn't read, but for those that say nothing about numbers; and
/// those that it needs and that aren't there.
static void note_keys(const outline *o, pm_diag *diag, const pm_loc *loc, const pm_json *config)
{
    pm_map seen;
    pm_str text = pm_str_new(o->arena), needed = pm_str_new(o->arena);
    pm_map_init(&seen, o->arena);
    for (size_t i = 0; i < config->n; i++)
        if (!reads(o, config->keys[i]))
            list(o->arena, &seen, &text, config->keys[i]);
    if (seen.n > 0)
        pm_note(diag, loc, "keys of config.json that it doesn't read: %s", text.data);
    pm_map_init(&seen, o->arena);
    for (size_t i = 0; i < o->needed.n; i++)
        if (lacking(o, config, o->needed.data[i]) != NULL)
            list(o->arena, &seen, &needed, lacking(o, config, o->needed.data[i]));
    if (seen.n > 0)
        pm_note(diag, loc, "keys that it needs and that aren't there: %s", needed.data);
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
