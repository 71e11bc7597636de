-- SPDX-License-Identifier: MIT
-- Guards on a PostgreSQL server.

assert(loadfile("spec/lua/support/on_server.lua", "t", _ENV))("postgres")
assert(loadfile("spec/lua/support/endings.lua", "t", _ENV))("postgres")
