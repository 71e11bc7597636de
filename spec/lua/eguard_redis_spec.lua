-- SPDX-License-Identifier: MIT
-- eguard on a Redis server.

assert(loadfile("spec/lua/support/eguard_on_server.lua", "t", _ENV))("redis")
