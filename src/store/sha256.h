/* SPDX-License-Identifier: MIT
** SHA-256 (FIPS 180-4), for names of lock files that would be too long.
*/
#ifndef EG_STORE_SHA256_H
#define EG_STORE_SHA256_H

#include <stddef.h>

void egi_sha256(const void *data, size_t len, unsigned char digest[32]);

#endif
