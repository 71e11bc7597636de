-- SPDX-License-Identifier: MIT
-- eguard on a PostgreSQL server.

local specs = "spec/lua/support/eguard_on_server.lua"
assert(loadfile(specs, "t", _ENV))("postgres")
