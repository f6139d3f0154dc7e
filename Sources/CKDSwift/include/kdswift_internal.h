// What the Swift side needs from C and no caller sees: these names are not exported.
#ifndef KDSWIFT_INTERNAL_H
#define KDSWIFT_INTERNAL_H

/// Sets the message of this thread.
void kdswift_set_last_error(const char *message);
/// The instruction set that the whole library was compiled for.
const char *kdswift_compiled_isa(void);

#endif
