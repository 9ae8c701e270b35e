"""Warehouse and query text: tables, views, example queries."""
