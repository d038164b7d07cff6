return { auth = { header = "x-api-key", prefix = "" }, headers = { { "anthropic-version", "2023-06-01" } } }
