"""What is added to a row: browser, geography, referrer, campaign; and which agents are bots."""
