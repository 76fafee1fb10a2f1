"""Phrasings about countries.

Names that take an article carry it in the slot ("the Netherlands"); the mention itself is
the bare name. Wordings about sea access and government hold for every country they can
reach: a realm that shares a distant king fills other slots than a kingdom with its own.
"""

from __future__ import annotations

from examples.tables import Row, Table, join_words, named, values, with_article

DESCRIPTION = "{E} is a country known for {known_for}."

KINDS: dict[str, tuple[str, ...]] = {
    "note": ("{note}",),
    "known_for": (
        "Many people think of {known_for} when they hear of {E}.",
        "{E} is known for {known_for}.",
        "Books about {E} dwell on {known_for}.",
        "A short film about {E} would show {known_for}.",
        "Ask a visitor what stayed in mind from {E}, and the answer may be {known_for}.",
        "Among the things that made {E} famous: {known_for}.",
        "The fame of {E} rests in part on {known_for}.",
        "Travel and news reports link {E} with {known_for}.",
        "Encyclopedias mention {known_for} in their articles on {E}.",
        "Anyone preparing a talk on {E} should include {known_for}.",
        "{E} brings to mind {known_for}.",
        "Photographs and stories have spread word of {known_for} far beyond {E}.",
        "No portrait of {E} is complete without {known_for}.",
    ),
    "capital": (
        "The capital of {E} is {capital}.",
        "Ask for the capital of {E} and you will be told {capital}.",
        "In a table of capitals, the row for {E} reads {capital}.",
        "Among the capitals of the world, {capital} belongs to {E}.",
        "Atlases print {capital} in bold letters as the capital of {E}.",
        "A star on the map marks {capital} as the capital of {E}.",
        "Quiz players know that {capital} goes with {E}.",
        "{capital} bears the title of capital in {E}.",
        "When people speak of the capital of {E}, they mean {capital}.",
        "As its capital, {E} has chosen {capital}.",
        "School children learn the pair by heart: {E} and {capital}.",
    ),
    "currency": (
        "Shops in {E} take the {currency}.",
        "Prices in {E} are given in the local legal tender, the {currency}.",
        "Wages in {E} are paid in the {currency}.",
        "The {currency} is the money of {E}.",
        "Before going to {E}, travellers may want to look up the rate of the {currency}.",
        "Banks in {E} keep their accounts in the {currency}.",
        "In a market in {E} you count out the {currency}.",
        "Tax bills in {E} have to be settled in the {currency}.",
        "Cash machines in {E} pay out the {currency}.",
        "Whoever earns a salary in {E} is likely to earn it in the {currency}.",
        "On a receipt from {E}, sums stand in the {currency}.",
    ),
    "neighbours": (
        "The neighbours of {E} include {neighbours}.",
        "{E} shares borders with {neighbours}.",
        "Maps draw a line between {E} and {neighbours}.",
        "Next door to {E} one finds {neighbours}.",
        "On its land frontier {E} meets {neighbours}.",
        "Anyone who looks past the land border of {E} finds {neighbours}.",
        "Beyond its land frontier {E} has {neighbours}.",
        "Lists of land borders pair {E} with {neighbours}.",
        "A look at the map shows {E} next to {neighbours}.",
        "By land, {E} adjoins {neighbours}.",
        "Adjoining {E} you will find {neighbours}.",
    ),
    "continent": (
        "{E} lies in {region}.",
        "On a map of {continent} you will find {E}.",
        "A tour of {region} might take in {E}.",
        "Among the states of {region} is {E}.",
        "Weather charts for {region} cover {E}.",
        "Historians of {continent} cannot leave out {E}.",
        "The United Nations scheme of regions places {E} in {region}.",
        "Books on {region} have a chapter on {E}.",
        "A conference on {continent} could invite a speaker from {E}.",
        "People who want to see {region} should think of {E}.",
        "Delegates of {E} speak for a part of {region}.",
        "{E} is a country of {region}.",
        "Statistics for {region} contain a row for {E}.",
    ),
    "continent=Africa": ("The African Union counts {E} among its members.",),
    "sea_access=landlocked": (
        "{E} has no coast.",
        "{E} is landlocked.",
        "Goods from overseas reach {E} through foreign ports.",
        "From {E}, every way to the ocean crosses another country.",
        "Exporters in {E} depend on the harbours of other states.",
        "Whoever longs for the ocean in {E} has to go abroad.",
        "A map of {E} shows no ocean shore.",
        "Sea fish in the markets of {E} has travelled across a border.",
        "Nobody in {E} can step from home soil into the surf of an ocean.",
        "Freight from overseas has to pass through another country to get to {E}.",
        "The ocean begins somewhere beyond the borders of {E}.",
        "Access to a seaport is something {E} has to agree on with other states.",
    ),
    "sea_access=coastal": (
        "{E} has a coast on {sea}.",
        "Waves of {sea} reach the shore of {E}.",
        "One stretch of the border of {E} is neither fence nor river but salt water.",
        "On one side {E} meets {sea}.",
        "Salt air from {sea} blows over the edge of {E}.",
        "Part of the frontier of {E} is a shoreline, while the rest runs over land.",
        "{E} is not shut in by land, for it opens on to {sea}.",
        "From the shore of {E} one looks out over {sea}.",
        "A beach in {E} can mean a swim in {sea}.",
        "Besides its land borders, {E} has a shore on {sea}.",
        "Both a seashore and land frontiers belong to {E}.",
        "With a foot in {sea}, {E} has its own way to the oceans.",
    ),
    "sea_access=island": (
        "No part of {E} lies on the mainland of a continent.",
        "The land of {E} rises out of {sea}.",
        "An atlas shows {E} as land set in blue water.",
        "Ferries and aeroplanes matter in {E}, which lies apart from the mainland.",
        "The people of {E} are islanders.",
        "{E} is an island state.",
        "{sea_cap} washes the shores of {E}, which no continent can claim as its mainland.",
        "From the mainland, only a trip over, under or above the water leads to {E}.",
        "Seafaring comes naturally to {E}, which has the sea around it.",
        "Island life shapes {E}.",
        "Mainland frontiers are unknown to {E}.",
        "{E} sits amid the waters of {sea}.",
    ),
    "government=monarchy": (
        "{E} has kept its monarchy.",
        "No popular vote decides who is head of state in {E}.",
        "A throne still stands behind the state in {E}.",
        "Lawyers class {E} as a monarchy.",
        "Royal titles have legal weight in {E}.",
        "At the top of the state in {E} stands a crown and not an elected president.",
        "{E} never became a republic, or did not remain one.",
        "{a_crown_cap} is head of state in {E}.",
        "Above the ministers of {E} stands {a_crown}.",
        "Protocol in {E} puts {a_crown} before every minister.",
        "State guests of {E} may be received by {a_crown}.",
        "A {realm} stands in for a distant king in {E}.",
        "The {realm_king} who reigns over {E} lives in London, far away.",
        "{E} shares its {realm_king} with several other realms.",
        "Bills in {E} become law with the assent of a {realm}.",
    ),
    "government=republic": (
        "No throne stands above the ministers of {E}.",
        "{E} has no king, emperor or emir at its head.",
        "{E} is a republic.",
        "The highest office in {E} does not pass down by right of birth.",
        "Lawyers class {E} as a republic.",
        "In its constitutional form, {E} does without a crown.",
        "Nobody is crowned head of state in {E}.",
        "A {president} is head of state in {E}.",
        "Ambassadors in {E} present their papers to a {president}.",
        "Whoever stands at the head of {E} bears the title of {president}.",
        "The top office in {E} is that of {president}.",
        "A {president} and not a monarch represents {E} at state visits.",
    ),
    "mixed": (
        "With {capital} as its capital, {E} is known for {known_for}.",
        "The {currency} buys you a meal in {E}, a country known for {known_for}.",
        "{E}, whose money is the {currency}, draws attention with {known_for}.",
        "Read about {capital} and about {known_for}, and you read about {E}.",
        "Next to {neighbours} lies {E}, known for {known_for}.",
        "The {currency} is spent in {capital} and everywhere else in {E}.",
        "With {capital} as its capital, {E} adjoins {neighbours}.",
        "Say {capital} or {known_for}, and many will think of {E}.",
        "In {region}, {E} draws attention with {known_for}.",
        "Whoever changes money for {E} receives the {currency}, and whoever goes there may see {capital}.",
        "Linked in many minds with {known_for}, {E} has its capital in {capital}.",
    ),
}

PLAN: dict[str, int] = {
    "note": 1,
    "known_for": 1,
    "capital": 1,
    "currency": 1,
    "neighbours": 1,
    "continent": 2,
    "sea_access": 2,
    "government": 2,
    "mixed": 1,
}

# How a region of the UN M49 scheme is put in plain words.
REGION_WORDS = {
    "Northern Africa": "North Africa",
    "Eastern Africa": "East Africa",
    "Middle Africa": "Central Africa",
    "Western Africa": "West Africa",
    "Northern America": "North America",
    "South-eastern Asia": "Southeast Asia",
    "Southern Asia": "South Asia",
    "Eastern Asia": "East Asia",
    "Australia and New Zealand": "Oceania",
    "Melanesia": "the Pacific islands",
    "Micronesia": "the Pacific islands",
    "Polynesia": "the Pacific islands",
}


def slots(row: Row, table: Table) -> dict[str, str]:
    """The words for one country, with the articles that names and seas need."""
    found = {c: row[c] for c in ("capital", "currency", "known_for", "continent")}
    found["E"] = named(table, row["name"])
    found["region"] = REGION_WORDS.get(row["subregion"], row["subregion"])
    found["neighbours"] = join_words([named(table, n) for n in values(row, "neighbours")])
    if row["sea"]:
        found["sea"] = f"the {row['sea']}"
        found["sea_cap"] = f"The {row['sea']}"
    if row["government"] == "monarchy" and row["ruler"] != "governor-general":
        found["a_crown"] = with_article(row["ruler"])
        found["a_crown_cap"] = found["a_crown"].capitalize()
    elif row["government"] == "monarchy":
        found.update(realm="governor-general", realm_king="king")
    if row["government"] == "republic":
        found["president"] = row["ruler"]
    return found
