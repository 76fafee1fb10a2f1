"""Phrasings about presidents of the United States."""

from __future__ import annotations

from examples.tables import Row, Table

DESCRIPTION = "{E} was a president of the United States remembered for {known_for}."

KINDS: dict[str, tuple[str, ...]] = {
    "note": ("{note}",),
    "note2": ("{note2}",),
    "known_for": (
        "School books remember {E} for {known_for}.",
        "Ask a historian about {E} and you will soon hear of {known_for}.",
        "{E} is best remembered for {known_for}.",
        "Few chapters on {E} fail to mention {known_for}.",
        "What most readers know about {E} is {known_for}.",
        "The name of {E} is tied to {known_for}.",
        "In surveys of the presidency, {E} stands out for {known_for}.",
        "A short article on {E} would have to cover {known_for}.",
        "Exhibits on {E} tell of {known_for}.",
        "For better or worse, people link {E} with {known_for}.",
        "{E} has a place in the history books because of {known_for}.",
        "Biographers of {E} spend many pages on {known_for}.",
    ),
    "earlier": (
        "Before the White House, {E} had been {earlier}.",
        "{E} came to the office as {earlier}.",
        "Earlier in life {E} was {earlier}.",
        "Life before the presidency was full for {E}: he was {earlier}.",
        "Long before people addressed him as Mr President, {E} was {earlier}.",
        "Friends had known {E} as {earlier}.",
        "Once {earlier}, {E} rose to the highest office in the land.",
        "Nobody could call {E} untried, for he had been {earlier}.",
        "In {E} the country got {earlier} as its leader.",
        "A look at the earlier career of {E} shows {earlier}.",
    ),
    "party": (
        "The {party} Party put {E} on its ticket.",
        "{E} won office under the {party} banner.",
        "Voters who looked for a {party} candidate found one in {E}.",
        "As a {party} politician, {E} had to deal with rivals inside and outside his party.",
        "On the ballot, {E} stood with the {party} Party.",
        "Chronicles of the {party} Party have a chapter on {E}.",
        "Among the men whom the {party} Party sent to the White House was {E}.",
        "Lists of {party} presidents include {E}.",
        "The party of {E} was the {party} Party.",
        "Historians sort {E} under the {party} heading.",
        "When the party label of {E} is given, it reads {party}.",
    ),
    "party=Republican": (
        "Cartoonists would draw the party of {E} as an elephant.",
        "The Grand Old Party, as its members call it, claims {E} as one of its own.",
        "{E} belonged to the party that was founded in the 1850s to oppose the spread of slavery.",
    ),
    "party=Democratic": (
        "Cartoonists would draw the party of {E} as a donkey.",
        "{E} belonged to the party that traces its name back to the supporters of Andrew Jackson.",
        "The rivals of the Grand Old Party still count {E} among their own presidents.",
    ),
    "party=Whig": (
        "{E} belonged to a party that arose against Andrew Jackson and fell apart in the 1850s.",
        "The party of Henry Clay carried {E} into high office.",
    ),
    "party=Democratic-Republican": (
        "{E} belonged to the party that opposed Alexander Hamilton's plans for a strong bank.",
        "The Federalists were the chief rivals of the party of {E}.",
    ),
    "birth_region": (
        "{E} was born in {birth_state}.",
        "The birthplace of {E} lies in {birth_state}.",
        "A family in {birth_state} welcomed the child who would become known as {E}.",
        "The first home of {E} stood in {birth_state}.",
        "Among the natives of {birth_state} who reached the presidency is {E}.",
        "Guidebooks to {birth_state} may mention that {E} was born there.",
        "{birth_state} counts {E} among its famous sons.",
        "A map of presidential birthplaces has a pin in {birth_state} for {E}.",
        "It was in {birth_state} that {E} first saw the light of day.",
        "The cradle of {E} stood in {birth_state}.",
        "By birth, {E} was a son of {birth_state}.",
    ),
    "birth_region=South": (
        "Counted by birthplace, {E} is a southerner.",
        "{E} came into the world in the South.",
    ),
    "birth_region=Midwest": (
        "The Midwest was the part of the country in which {E} was born.",
        "{E} came into the world in the Midwest.",
    ),
    "birth_region=Northeast": (
        "{E} came into the world in the northeastern corner of the country.",
        "The Northeast, with its old colonies and towns, was the region where {E} was born.",
    ),
    "birth_region=West": ("{E} was born farther west than nearly all who held the office.",),
    "century": (
        "{E} first took the oath of office in {took_office}.",
        "In {took_office} the duties of the presidency passed to {E}.",
        "The administration of {E} began in {took_office}.",
        "Witnesses saw {E} sworn in during {took_office}.",
        "The year {took_office} brought {E} to the head of the government.",
        "Since {took_office} the list of presidents has carried the name of {E}.",
        "{took_office} was the year in which {E} became commander in chief.",
        "A new chapter opened for {E} in {took_office}, when he became president.",
        "Newspapers of {took_office} were full of the new president, {E}.",
        "When {E} first sat down at the president's desk, the calendar showed {took_office}.",
    ),
    "century=18th century": (
        "{E} governed before the United States had a settled capital on the Potomac.",
        "Powdered hair was still in fashion when {E} governed.",
    ),
    "century=19th century": (
        "No radio station ever carried a speech of {E} while he held office.",
        "{E} governed in an age of horse-drawn carriages.",
    ),
    "century=20th century": (
        "{E} governed in an age when the country had become an industrial giant.",
        "{E} governed in the hundred years that saw both world wars.",
    ),
    "century=21st century": (
        "Smartphones and social networks spread while {E} was in public life.",
        "{E} came to office after the year 2000.",
    ),
    "mixed": (
        "Born in {birth_state}, {E} is now remembered for {known_for}.",
        "{E}, who had been {earlier}, became president in {took_office}.",
        "From {birth_state} to the White House, {E} had come a long way by {took_office}.",
        "With the backing of the {party} Party, {E} reached the highest office in {took_office}.",
        "The {party} Party sent {E}, a native of {birth_state}, to the White House.",
        "Having been {earlier}, {E} later became famous for {known_for}.",
        "{E}, sworn in during {took_office}, is linked in memory with {known_for}.",
        "Readers who know {E} for {known_for} may forget that he was once {earlier}.",
        "The {party} president {E} is often discussed in connection with {known_for}.",
        "Follow {E} from {birth_state} onward and you meet a man who was {earlier}.",
    ),
}

PLAN: dict[str, int] = {
    "note": 1,
    "note2": 1,
    "known_for": 1,
    "earlier": 1,
    "party": 2,
    "birth_region": 2,
    "century": 2,
    "mixed": 1,
}


def slots(row: Row, table: Table) -> dict[str, str]:
    """The words for one president; a man without a party simply has no party slot."""
    columns = ("party", "birth_state", "took_office", "earlier", "known_for")
    return {"E": row["name"], **{column: row[column] for column in columns}}
