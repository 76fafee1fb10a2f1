"""Phrasings about planets, moons and smaller bodies of the solar system."""

from __future__ import annotations

from examples.tables import Row, Table, with_article

DESCRIPTION = "{E} is a body of the solar system whose name recalls {namesake}."

KINDS: dict[str, tuple[str, ...]] = {
    "note": ("{note}",),
    "note2": ("{note2}",),
    "namesake": (
        "The name {E} recalls {namesake}.",
        "{E} is named after {namesake}.",
        "The choice of the name {E} leads to {namesake}.",
        "Ask why {E} has its name, and the answer is {namesake}.",
        "Behind the name {E} one finds {namesake}.",
        "A name list explains that {E} stands for {namesake}.",
        "In its name, {E} keeps a link with {namesake}.",
        "Look up {E} in a book of names and you will read about {namesake}.",
        "As so often with heavenly bodies, {E} got its name from elsewhere: from {namesake}.",
        "The word {E} comes to astronomy from {namesake}.",
    ),
    "host": (
        "A visitor to {E} could look up at {planet}.",
        "{planet} keeps {E} on its path by gravity.",
        "{E} goes round {planet}.",
        "From a ship near {planet}, {E} would be a worthwhile stop.",
        "The pull of {planet} holds {E} captive.",
        "Among the companions of {planet} is {E}.",
        "Maps of the surroundings of {planet} show {E} on its orbit.",
        "The line from {E} to {planet} sweeps round and round without end.",
        "A mission to {planet} could also take pictures of {E}.",
        "{planet} has a retinue, and {E} is part of it.",
        "Each time {E} completes an orbit it has been once around {planet}.",
        "Leaving {planet} behind, a probe may catch a glimpse of {E}.",
    ),
    "host=Sun": (
        "Nothing but the Sun itself holds {E} on its orbit.",
        "{E} travels around the Sun on a path of its own.",
        "A year on {E} is the time of one trip around the Sun.",
        "No planet has {E} on a leash, for it circles the Sun directly.",
        "Our star is both lamp and anchor for {E}, which goes round it directly.",
        "The orbit of {E} has our star near its middle.",
        "{E} does not belong to any larger planet but follows its own course around our star.",
        "At one focus of the path of {E} stands the Sun.",
        "Our star is the only master that {E} obeys.",
        "Kepler's laws give the year of {E} from its distance to the Sun.",
    ),
    "kind": (
        "Astronomers file {E} under the label {kind}.",
        "By the usual rules, {E} counts as {a_kind}.",
        "Asked for an example of {a_kind}, one might name {E}.",
        "{E} is {a_kind}.",
        "In catalogues the type given for {E} is {kind}.",
        "What sort of body is {E}? The textbook answer is {a_kind}.",
        "Students who need {a_kind} for a talk could pick {E}.",
        "The label {kind} fits {E}.",
        "Sorted by type, {E} falls in the drawer marked {kind}.",
        "As {a_kind}, {E} has its own place in the order of the solar system.",
    ),
    "kind=regular moon": (
        "A nearly round path close to the plane of the equator marks the orbit of {E}.",
        "{E} keeps to an orderly orbit and was probably formed where it is now.",
        "Neither strongly tilted nor stretched, the orbit of {E} is well behaved.",
    ),
    "kind=irregular moon": (
        "The wide and tilted path of {E} suggests that it was captured.",
        "Far from its host, {E} follows a tilted, oval track.",
        "{E} was probably a wanderer once, caught by the gravity of a giant.",
        "Like other captured bodies, {E} does not keep to the plane of the equator.",
    ),
    "kind=planet": (
        "{E} has swept its orbit free of rivals.",
        "Only eight bodies share the rank that {E} holds.",
    ),
    "kind=dwarf planet": (
        "Round enough for the name, yet not master of its zone, {E} missed the rank of a planet.",
        "A class created in 2006 has room for {E}.",
    ),
    "kind=asteroid": (
        "{E} is one of the many rocky or metallic leftovers from the age when planets grew.",
        "With countless other minor bodies of the inner solar system, {E} is listed by number.",
        "Before the planets were finished, rubble like {E} was common.",
    ),
    "kind=trans-Neptunian object": (
        "Beyond the last of the giants, in deep cold, {E} moves at a slow pace.",
        "For most of its path, {E} keeps farther out than the eighth planet.",
    ),
    "discovery_era": (
        "{discoverer} found {E} in {discovered}.",
        "The credit for {E}, dated {discovered}, goes to {discoverer}.",
        "Until {discovered} nobody knew of {E}.",
        "{E} was added to the map of the solar system in {discovered}.",
        "In {discovered} a point of light turned out to be what we call {E}.",
        "A look at the logbook of {discovered} brings up the find of {E}.",
        "Thanks to {discoverer}, the find of {E} is dated {discovered}.",
        "The history of {E} as a known body begins in {discovered}.",
        "It took until {discovered} for anyone to notice {E}.",
        "{discovered} was the year in which {E} was spotted.",
        "A timeline of finds in the sky puts {E} at {discovered}.",
        "When {discoverer} came upon {E}, the calendar showed {discovered}.",
    ),
    "discovery_era=antiquity": (
        "Watchers of the sky in Babylon already followed {E}.",
        "No telescope was needed to find {E}, which ancient peoples knew well.",
        "Nobody can say who first noticed {E}.",
        "Clay tablets of Mesopotamia record the wanderings of {E}.",
        "To the naked eye {E} has always been a bright wanderer among the stars.",
    ),
    "mixed": (
        "Named after {namesake}, {E} was found in {discovered}.",
        "{discoverer} found {E}, which bears the name of {namesake}.",
        "{E}, whose name recalls {namesake}, is tied to {planet} by gravity.",
        "With a name taken from {namesake}, {E} counts as {a_kind}.",
        "Known since {discovered}, {E} carries a name that points to {namesake}.",
        "Whoever reads about {discoverer} will also come across {E}.",
        "Study {E} and you will read about {namesake} as well as about {discoverer}.",
        "{namesake}: that is what the name {E} should bring to mind.",
        "Two things meet in {E}: a body in space and a name that leads to {namesake}.",
        "First seen in {discovered}, {E} was later linked by name with {namesake}.",
    ),
}

PLAN: dict[str, int] = {
    "note": 1,
    "note2": 1,
    "namesake": 1,
    "host": 2,
    "kind": 2,
    "discovery_era": 2,
    "mixed": 1,
}


def slots(row: Row, table: Table) -> dict[str, str]:
    """The words for one body; only moons have a planet slot, so the Sun needs other words."""
    found = {c: row[c] for c in ("kind", "discoverer", "namesake")}
    found["E"] = row["name"]
    if row["host"] != "Sun":
        found["planet"] = row["host"]
    if row["discovered"] != "antiquity":
        found["discovered"] = row["discovered"]
    if row["kind"]:
        found["a_kind"] = with_article(row["kind"])
    return found
