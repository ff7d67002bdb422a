"""The ledger: every model reply and tool call as a row, written once, read back at recovery."""
