/* SPDX-License-Identifier: MIT
** What libFuzzer calls, thousands of times a second, with what it made up.
*/
#ifndef SPEC_FUZZ_H
#define SPEC_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
