"""The facts that are added to a row: browser, geography, referrer, campaign; and the rules that name bots."""
