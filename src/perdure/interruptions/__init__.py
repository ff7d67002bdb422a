"""What a run stopped on: questions to people and the decisions on them. It never wakes a run."""
