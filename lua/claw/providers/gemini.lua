return { auth = { header = "x-goog-api-key", prefix = "" } }
