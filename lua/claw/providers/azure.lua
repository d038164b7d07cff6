return { auth = { header = "api-key", prefix = "" } }
