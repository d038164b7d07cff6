std = "luajit"
max_line_length = 120
self = false
files["spec"] = { std = "+busted" }
-- Policies see the sandbox's globals only (lua/claw/sandbox.lua).
files["policies"] = { std = "lua51", globals = {}, read_globals = { "claw" } }
exclude_files = { "build", "examples" }
