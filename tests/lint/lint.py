#!/usr/bin/env python3
"""Checks the tree against the rules that a compiler does not check. Usage: lint.py ROOT

Each broken rule is a line `file:line: [rule] what`. What may break a rule is listed, with a reason, in
tests/lint/exceptions.txt; an exception that nothing needs is an error, too. The rules:

  layers    base < ir < {frontend | passes | codegen} < tools; base < runtime < tools; the three in braces and
            the runtime do not include one another, but for the two headers of the ABI in codegen
  llvm      only codegen/mlir includes mlir-c/, only codegen/{cpu,cuda,mlir} llvm-c/, nobody LLVM's C++
  root      project headers are included by their path from the root, and exist
  cycles    no header includes itself by way of others
  guard     PM_, folders of the path (none must be there), the file's name, _H; no guard twice
  names     file names are unique
  length    files have at most 1,000 lines
  function  functions have at most 80 lines
  python    only tests and benchmarks are written in Python
  words     nothing names folders of one machine or hosts of registries
  links     relative links and anchors in *.md lead somewhere
  scripts   what begins with #! is executable"""
import fnmatch
import os
import re
import subprocess
import sys

MAX_FILE, MAX_FUNCTION = 1000, 80
LOWER = {"include": [], "base": [], "ir": ["base"], "runtime": ["base"]}
LOWER |= {part: ["base", "ir"] for part in ("frontend", "passes", "codegen")}
LOWER["tools"] = ["base", "ir", "runtime", "frontend", "passes", "codegen"]
LOWER["samples"] = []
for part in ("tests", "bench"):
    LOWER[part] = LOWER["tools"] + ["tools", "tests", "bench"]
ABI = ("runtime/artifact_format.h", "runtime/runtime_abi.h")  # all that codegen sees of the runtime
SHARED_NAMES = ("README.md", "CMakeLists.txt", "LICENSE")
CODE = (".c", ".h", ".cpp", ".def", ".inc", ".S")
TEXT = CODE + (".py", ".sh", ".md", ".txt", ".cmake", ".in", ".json", ".pm", ".yml", "")
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
# Split, so that this file passes.
WORDS = re.compile(
    r"(?<![\w}.$)\]*])/wo" r"rk(?=/|\b)(?![-\w])|\.\./sha" r"red\b"
    r"|py" r"pi\.org|python" r"hosted\.org|npm" r"js\.org|crates" r"\.io\b|(deb|ftp)\.deb" r"ian\.org|apt\.ll" r"vm\.org"
)


def tracked(root):
    """Files under version control, or without it all but what is built or hidden."""
    listing = subprocess.run(
        ["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=False
    ) if os.path.exists(os.path.join(root, ".git")) else None
    if listing and listing.returncode == 0:
        return [f for f in listing.stdout.split("\0") if f and os.path.isfile(os.path.join(root, f))]
    files = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [s for s in subfolders if not s.startswith(".") and s not in ("build", "__pycache__")]
        files += [os.path.relpath(os.path.join(folder, n), root) for n in names]
    return sorted(files)


class Lint:
    def __init__(self, root):
        self.root = root
        self.files = tracked(root)
        self.known = set(self.files)
        self.texts = {}
        self.found = []  # (rule, subject of exceptions, file, line, message)
        for f in self.files:
            if os.path.splitext(f)[1] in TEXT and not f.startswith("tests/fuzz/corpus/"):
                with open(os.path.join(root, f), encoding="utf-8", errors="replace") as text:
                    self.texts[f] = text.read().split("\n")

    def say(self, rule, file, line, message, subject=None):
        self.found.append((rule, subject or file, file, line, message))

    def code(self, endings=CODE):
        return [(f, lines) for f, lines in self.texts.items() if f.endswith(endings)]

    # rules

    def includes(self):
        graph = {}
        for file, lines in self.code():
            part = file.split("/")[0]
            for number, line in enumerate(lines, 1):
                m = INCLUDE.match(line)
                if not m:
                    continue
                kind, path = m.groups()
                if re.match(r"(llvm-c|mlir-c)/", path):
                    where = ("codegen/cpu/", "codegen/cuda/", "codegen/mlir/") if path.startswith("llvm") else ("codegen/mlir/",)
                    if not file.startswith(where):
                        self.say("llvm", file, number, f"{path} belongs to {' and '.join(where)}")
                elif re.match(r"(llvm|mlir|lld|clang)/", path):
                    self.say("llvm", file, number, f"{path} is C++, which codegen/link/lld_shim.cpp hides from the rest")
                elif path.startswith("pm/"):
                    graph.setdefault(file, {})["include/" + path] = number
                    if "include/" + path not in self.known:
                        self.say("root", file, number, f"{path} is not in include/")
                elif kind == '"':
                    self.project_include(graph, file, part, number, path)
        self.cycles(graph)

    def project_include(self, graph, file, part, number, path):
        if path not in self.known:
            self.say("root", file, number, f'"{path}" is no file from the root', f"{file}:{path}")
            return
        graph.setdefault(file, {})[path] = number
        to = path.split("/")[0]
        if part in LOWER and to != part and to not in LOWER[part] + ["include"]:
            if part != "codegen" or path not in ABI:
                self.say("layers", file, number, f"{part} must not include {path}")

    def cycles(self, graph):
        state = {}
        for start in graph:
            stack = [(start, iter(graph.get(start, {})))]
            if state.setdefault(start, 1) == 2:
                continue
            while stack:
                file, rest = stack[-1]
                to = next(rest, None)
                if to is None:
                    state[file] = 2
                    stack.pop()
                elif state.get(to) == 1:
                    self.say("cycles", file, graph[file][to], f"{to} includes this file, which includes it")
                elif to not in state:
                    state[to] = 1
                    stack.append((to, iter(graph.get(to, {}))))

    def guards(self):
        guards = {}
        for file, lines in self.code((".h",)):
            text = "\n".join(lines)
            m = re.match(r"(?:\s|//[^\n]*|/\*.*?\*/)*#ifndef (\w+)\n#define (\w+)\n", text, re.S)
            if not m or m[1] != m[2]:
                self.say("guard", file, 1, "no include guard")
                continue
            line = text.count("\n", 0, m.start(1)) + 1
            folders = [s.upper().replace("-", "_") for s in file.split("/")[:-1]]
            name = os.path.basename(file)[:-2].upper().replace("-", "_")
            fits = "PM_" + "".join(f"(?:{s}_)?" for s in folders) + name + "_H"
            if not re.fullmatch(fits, m[1]):
                self.say("guard", file, line, f"{m[1]} does not fit the path")
            elif m[1] in guards:
                self.say("guard", file, line, f"{m[1]} is the guard of {guards[m[1]]}, too")
            guards.setdefault(m[1], file)

    def names(self):
        first = {}
        for file in self.files:
            name = os.path.basename(file)
            if name in SHARED_NAMES:
                continue
            if name in first:
                self.say("names", file, 1, f"{first[name]} has that name, too")
            first.setdefault(name, file)

    def lengths(self):
        for file, lines in self.code(CODE + (".py", ".sh", ".cmake")):
            n = len(lines) - (lines[-1] == "")
            if n > MAX_FILE:
                self.say("length", file, n, f"{n} lines; {MAX_FILE} are enough")
        for file, lines in self.code((".c", ".h", ".cpp")):
            begin = None
            for number, line in enumerate(lines, 1):
                if line.startswith("{"):
                    begin = number
                elif line.startswith("}") and begin:
                    n = number - begin + 1
                    if n > MAX_FUNCTION:
                        name = function_name(lines, begin)
                        self.say("function", file, begin, f"{name} has {n} lines; {MAX_FUNCTION} are enough",
                                 f"{file}:{name}")
                    begin = None

    def words(self):
        for file, lines in self.texts.items():
            if file.startswith("tests/data/"):
                continue
            for number, line in enumerate(lines, 1):
                m = WORDS.search(line)
                if m:
                    self.say("words", file, number, f"{m[0]!r} means nothing to others")

    def python(self):
        for file in self.files:
            if file.endswith(".py") and not file.startswith(("tests/", "bench/")):
                self.say("python", file, 1, "Python outside of tests and benchmarks")

    def links(self):
        for file, lines in self.code((".md",)):
            for number, line in prose(lines):
                for target in re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", re.sub(r"`[^`]*`", "", line)):
                    if re.match(r"[a-z]+:", target):
                        continue
                    path, _, anchor = target.partition("#")
                    to = os.path.normpath(os.path.join(os.path.dirname(file), path)) if path else file
                    if to not in self.known and not any(f.startswith(to + "/") for f in self.files):
                        self.say("links", file, number, f"{target} leads nowhere")
                    elif anchor and to in self.texts and anchor not in anchors(self.texts[to]):
                        self.say("links", file, number, f"{to} has no heading #{anchor}")

    def scripts(self):
        for file, lines in self.texts.items():
            if lines[0].startswith("#!") and not os.access(os.path.join(self.root, file), os.X_OK):
                self.say("scripts", file, 1, "begins with #! but is not executable")

    def run(self):
        for rule in (self.includes, self.guards, self.names, self.lengths, self.words, self.python,
                     self.links, self.scripts):
            rule()
        return self.without_exceptions()

    def without_exceptions(self):
        """Lines to print: what is broken and not excepted, and exceptions that are wrong."""
        name = "tests/lint/exceptions.txt"
        exceptions, out = [], []
        with open(os.path.join(self.root, name), encoding="utf-8") as file:
            lines = file.read().split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.startswith("#"):
                rule, subject, reason = (line.split(None, 2) + ["", ""])[:3]
                exceptions.append([number, rule, subject, 0])
                if len(reason) < 10:
                    out.append(f"{name}:{number}: [exceptions] an exception needs a reason")
        for rule, subject, file, line, message in self.found:
            matching = [e for e in exceptions if e[1] == rule and fnmatch.fnmatchcase(subject, e[2])]
            for e in matching:
                e[3] += 1
            if not matching:
                out.append(f"{file}:{line}: [{rule}] {message}")
        out += [f"{name}:{n}: [exceptions] nothing needs this one any more: {rule} {subject}"
                for n, rule, subject, uses in exceptions if not uses]
        return out


def function_name(lines, begin):
    """Of the function whose body begins at that line (from 1): the last word before its first parenthesis."""
    for first in range(begin - 1, 0, -1):
        line = lines[first - 1]
        if re.match(r"\w", line):
            m = re.match(r"START_TEST\((\w+)\)", line) or re.search(r"(\w+)\s*\(", line)
            return m[1] if m else line.split("(")[0].strip()
    return "?"


def prose(lines):
    fenced = False
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(lines):
    found = set()
    for _, line in prose(lines):
        m = re.match(r"#+\s+(.*?)\s*#*$", line)
        if m:
            slug = re.sub(r"[^\w\- ]", "", m[1].lower().replace("`", "")).replace(" ", "-")
            n = 0
            while slug + (f"-{n}" if n else "") in found:
                n += 1
            found.add(slug + (f"-{n}" if n else ""))
    return found


def main():
    broken = Lint(os.path.realpath(sys.argv[1])).run()
    for line in broken:
        print(line)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
