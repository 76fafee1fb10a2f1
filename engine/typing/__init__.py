"""Type mentions of entities (FiveFine): read examples, represent mentions and labels, predict, measure."""
