-- Its paths carry no version: /chat/completions stands right below the base URL. Usage comes without being asked for.
return require("claw.providers.compatible")({ version = "", stream_usage = false })
