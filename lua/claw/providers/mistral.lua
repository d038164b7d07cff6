-- Usage comes with a stream's last chunk without being asked for, and fields it does not know are refused.
return require("claw.providers.compatible")({ stream_usage = false })
