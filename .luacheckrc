std = "luajit"
max_line_length = 120
self = false
files["spec"] = { std = "+busted", max_line_length = 150 } -- tables of cases
-- Policies see the sandbox's globals only (lua/claw/sandbox.lua).
files["policies"] = { std = "lua51", read_globals = { "claw" } }
files["examples"] = { std = "lua51", read_globals = { "claw" } }
files["deploy"] = { std = "lua51", read_globals = { "claw" } }
files["examples/*/spec"] = { std = "luajit+busted" }
files["rocks"] = { std = "luajit+busted" }
exclude_files = { "build", "lua/openclaw/claw.d.lua" } -- the latter is for editors, not for running
