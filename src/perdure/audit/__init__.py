"""Who did what: rows that are only added, sealed afterwards in a chain of hashes for each tenant.

``log`` writes rows, in the transaction of what they tell of; ``sealing`` chains them later, so that
nobody waits for anybody else's decision; ``verify`` finds the first that is not as it was;
``erasing`` takes names out without breaking the chain. ``chain`` has the rules, pure.
"""
