"""Phrasings about chemical elements.

Element names are lower case in running text, so no phrasing starts with the bare name.
"""

from __future__ import annotations

from examples.tables import Row, Table, ordinal, with_article

DESCRIPTION = "The chemical element {E} has the symbol {symbol} and the atomic number {number}."

KINDS: dict[str, tuple[str, ...]] = {
    "note": ("{note}",),
    "note2": ("{note2}",),
    "use": (
        "Industry values {E} for {use}.",
        "Among the uses of {E} are {use}.",
        "Buyers of {E} want it for {use}.",
        "A good part of the demand for {E} comes from {use}.",
        "Think of {use}, and you think of work that {E} can do.",
        "The element {E} has found a place in {use}.",
        "Engineers and chemists turn to {E} for {use}.",
        "Trade papers mention {E} in connection with {use}.",
        "Textbooks mention {use} when they list what {E} is good for.",
        "Once a curiosity of the laboratory, {E} has become useful in {use}.",
        "One reason why people produce {E} is its role in {use}.",
        "A lesson on {use} is also a lesson on {E}.",
    ),
    "number": (
        "The nucleus of {E} holds {protons}.",
        "Box number {number} of the periodic table belongs to {E}.",
        "Count {protons} in a nucleus and you have {E}.",
        "In the order of atomic numbers, {E} comes in place {number}.",
        "An atom of {E} balances the charge of {protons} with that of its electrons.",
        "Chemists give {E} the atomic number {number}.",
        "Move along the periodic table to place {number} and you will meet {E}.",
        "The {nth} element in the periodic table is {E}.",
        "A neutral atom of {E} keeps {electrons} around its nucleus.",
        "It is the charge of {protons} that makes {E} what it is.",
        "In a model of {E}, the nucleus has to show {protons}.",
    ),
    "symbol": (
        "Chemists write {symbol} when they mean {E}.",
        "The symbol of {E} is {symbol}.",
        "In formulas, {E} appears as {symbol}.",
        "Look for the letters {symbol} if you search for {E} on a wall chart.",
        "A label that reads {symbol} stands for {E}.",
        "For short, {E} is written as {symbol}.",
        "Students learn to read {symbol} as {E}.",
        "The shorthand {symbol} stands for {E} in every language.",
        "Whoever sees {symbol} in a reaction should think of {E}.",
        "On the periodic table, {E} is marked with {symbol}.",
    ),
    "origin": (
        "The name of {E} goes back to {origin}.",
        "Language lovers trace the word {E} to {origin}.",
        "Behind the name {E} one finds {origin}.",
        "Ask where the word {E} comes from and the answer is {origin}.",
        "The word {E} can be followed back to {origin}.",
        "At the root of the word {E} lies {origin}.",
        "A dictionary entry on {E} leads back to {origin}.",
        "Students of words connect {E} with {origin}.",
        "The origin of the name {E} is {origin}.",
        "Like many elements, {E} has a name with a story, which starts with {origin}.",
    ),
    "discovery_era": (
        "Credit for finding {E} in {discovered} goes to {discoverer}.",
        "It was in {discovered} that {discoverer} found {E}.",
        "The discovery of {E} is dated to {discovered}.",
        "Before {discovered}, no chemist could point to {E} on a list of known elements.",
        "{discoverer} added {E} to the list of elements in {discovered}.",
        "In {discovered} the number of known elements grew by one, {E}.",
        "A timeline of chemistry shows {E} at the year {discovered}.",
        "The year {discovered} stands beside {E} in most histories of the elements.",
        "Work by {discoverer} brought {E} to light in {discovered}.",
        "The story of {E} as a known element begins in {discovered}.",
        "What {discoverer} had found in {discovered} was a new element, {E}.",
        "Lectures on the history of chemistry tie {E} to {discovered}.",
    ),
    "discovery_era=antiquity": (
        "People handled {E} thousands of years before anyone spoke of elements.",
        "No discoverer of {E} is on record, for ancient peoples already knew it.",
        "Archaeologists come across {E} at very old sites.",
        "Long before modern chemistry, {E} was a familiar substance.",
        "The first human being to hold {E} in the hand lived in prehistory or the ancient world.",
        "Writers of the ancient world already mention {E}.",
    ),
    "family": (
        "The family of {E} in the periodic table is that of the {family}s.",
        "Chemists group {E} with the {family}s.",
        "As {a_family}, {E} behaves much like its relatives.",
        "A chapter on {family}s would not be complete without {E}.",
        "By its chemistry, {E} is {a_family}.",
        "Ask a teacher for {a_family} and {E} may be the answer.",
        "Colour-coded tables give {E} the shade of the {family}s.",
        "Among the {family}s, {E} has its own character.",
        "The {family}s include {E}.",
        "It is usual to call {E} {a_family}.",
    ),
    "family=noble gas": (
        "With its outer shell full, {E} hardly ever bonds with anything.",
        "Atoms of {E} travel alone, because they have no wish to share electrons.",
        "The far right column of the periodic table is home to {E}.",
        "Colourless and without smell, {E} stays aloof from almost all reactions.",
    ),
    "family=halogen": (
        "One electron short of a full shell, {E} readily forms salts with metals.",
        "The column next to the last in the periodic table holds {E}.",
        "Salts come into being when {E} meets sodium or another eager metal.",
        "Group 17 is where {E} belongs.",
    ),
    "family=alkali metal": (
        "A chemist would keep {E} well away from moisture.",
        "A single outer electron, easily lost, makes {E} very reactive.",
        "The first column of the periodic table contains {E}.",
        "Water and {E} make a dangerous pair, for the mix gives off hydrogen and heat.",
    ),
    "family=alkaline earth metal": (
        "Two outer electrons, easily given up, shape the chemistry of {E}.",
        "The second column of the periodic table contains {E}.",
        "In compounds, {E} nearly always carries a charge of plus two.",
        "Group 2 is where {E} belongs.",
    ),
    "family=metalloid": (
        "Neither quite a metal nor quite a nonmetal, {E} stands on the border.",
        "Along the zigzag line that parts metals from nonmetals you will find {E}.",
        "With properties of both camps, {E} sits between metals and nonmetals.",
        "Some call {E} a half-metal.",
    ),
    "family=other nonmetal": (
        "Unlike a metal, {E} does not lend itself to wires or springs.",
        "Life as we know it makes use of {E}, which lies on the nonmetal side of the table.",
        "Chemists see in {E} a nonmetal rather than a metal.",
        "Outside the last two columns of the table, {E} still counts as a nonmetal.",
    ),
    "family=post-transition metal": (
        "To the right of the big middle block of metals, {E} is softer and melts more easily.",
        "Sometimes called a poor metal, {E} lies close to the border with the nonmetals.",
        "In the p-block, but still a metal: that describes {E}.",
    ),
    "family=transition metal": (
        "The broad middle block of the periodic table includes {E}.",
        "Partly filled d shells decide how {E} behaves.",
        "Look in the d-block if you want to find {E}.",
        "One of the groups from 3 to 11 is the place of {E}.",
    ),
    "family=lanthanide": (
        "Lists of the rare earths include {E}.",
        "In the upper of the two rows printed below the main table, {E} has its box.",
        "Chemists find it hard to part {E} from its look-alike neighbours.",
        "Counted with the rare earths, {E} usually gives up three electrons.",
    ),
    "family=actinide": (
        "In the lowest row of the printed table, below the rare earths, {E} has its box.",
        "The 5f row of heavy elements includes {E}.",
        "Right at the bottom of the usual periodic chart stands {E}.",
    ),
    "stability": (),
    "stability=stable": (
        "At least one sort of atom of {E} can last for ever.",
        "Nature offers at least one isotope of {E} that does not decay.",
        "In a million years, the lasting isotope of {E} would still be there.",
        "No half-life can be given for every isotope of {E}, since not all of them decay.",
        "Ordinary chemists can work with {E} without a thought of radiation.",
        "At least one kind of nucleus of {E} holds together for good.",
        "Nobody has seen the steadiest isotope of {E} fall apart.",
        "Time does not wear down every nucleus of {E}.",
        "Unlike the heaviest elements, {E} has a nucleus that can endure.",
        "For at least one isotope of {E} no decay has ever been seen.",
    ),
    "stability=radioactive": (
        "Every isotope of {E} decays sooner or later.",
        "A sample of {E} dwindles as its nuclei break up.",
        "There is no isotope of {E} that lasts for ever.",
        "Geiger counters click near {E}.",
        "All known nuclei of {E} fall apart in time.",
        "Half-lives are the first thing to ask about when you work with {E}.",
        "Handling {E} calls for protection against radiation.",
        "Sooner or later a nucleus of {E} turns into that of another element.",
        "Not one stable form of {E} is known.",
        "Whoever wants to study {E} has to reckon with its decay.",
        "Store {E} for long enough and it will turn into something else.",
    ),
    "mixed": (
        "Known by the symbol {symbol}, {E} owes its name to {origin}.",
        "Placed at number {number}, {E} has a link to {use}.",
        "The list entry reads {symbol}, number {number}: {E}.",
        "Found by {discoverer}, {E} bears a name that leads back to {origin}.",
        "Today {E}, symbol {symbol}, is known for {use}.",
        "Under the symbol {symbol} you find {E}, a word that leads back to {origin}.",
        "Number {number} in the table, {E} has a name that leads back to {origin}.",
        "Thanks to {discoverer} we know {E}, whose atoms have {protons} each.",
        "In texts about {use} one meets {E}, which chemists shorten to {symbol}.",
        "Both the symbol {symbol} and the number {number} stand for {E}.",
    ),
}

PLAN: dict[str, int] = {
    "note": 1,
    "note2": 1,
    "use": 1,
    "number": 1,
    "symbol": 1,
    "origin": 1,
    "discovery_era": 2,
    "family": 2,
    "stability": 2,
    "mixed": 1,
}


def slots(row: Row, table: Table) -> dict[str, str]:
    """The words for one element; unknown facts stay empty and their phrasings unused."""
    found = {c: row[c] for c in ("symbol", "number", "discoverer", "origin", "use")}
    found["E"] = row["name"]
    found["protons"] = "1 proton" if row["number"] == "1" else f"{row['number']} protons"
    found["electrons"] = found["protons"].replace("proton", "electron")
    found["nth"] = ordinal(int(row["number"]))
    if row["discovered"] != "antiquity":
        found["discovered"] = row["discovered"]
    if row["family"]:
        family = row["family"].replace("other nonmetal", "nonmetal")
        found["family"] = family
        found["a_family"] = with_article(family)
    return found
