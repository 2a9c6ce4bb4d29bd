"""How many emails of an account's plan are used up this month, and what follows from it.

``figures``   what is known of an account, and what an answer changes about it: pure
``keeping``   answers → a row for each account, and the signal ``quota_threshold``
``overview``  what the rows say, for pages and programs
"""
