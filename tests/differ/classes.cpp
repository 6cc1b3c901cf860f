// Live objects of classes that lay something else where in the second build, or do not, though much else about the class changed.
typedef unsigned int u32;
typedef unsigned long long u64;

#if CHANGE == 1
#define PICK(old, fixed) old
#else
#define PICK(old, fixed) fixed
#endif
#define TWO(one, other) PICK(one other, other one)

// What it inherits changed places.
struct Limits { TWO(u32 low;, u32 high;) };
struct Bounded : Limits { u64 count; };

// The classes that it inherits from changed places.
struct Key { u64 key; };
struct Mark { double weight; };
struct Marked : PICK(Key, Mark), PICK(Mark, Key) { u64 count; };

// It was made polymorphic: the pointer to its table of functions is where its first member was.
struct Plain { PICK(, virtual u64 get() { return one; }) u64 one; PICK(u64 two = 0;, ) };

// The same: another virtual function, a static member and a type of its own lie in no object.
struct Shape { virtual u64 area() { return 3; } PICK(, virtual u64 sides() { return 4; }) u64 width; };
struct Square : Shape { u64 height; PICK(, static u64 made; struct Inner { u64 some; };) u64 both() { return width + height; } };

// Not told: only the class's own table says where a virtual base class lies.
struct Far : virtual Limits { u64 count; };

Bounded bounded;
Marked marked;
Plain plain;
Square square;
Far remote;

#define SHOWN(name) extern "C" __declspec(dllexport) __attribute__((noinline)) void *at_##name() { return (void *)&name; }
SHOWN(bounded) SHOWN(marked) SHOWN(plain) SHOWN(square) SHOWN(remote)
extern "C" __declspec(dllexport) __attribute__((noinline)) u64 f(u64 x) { return x * PICK(3, 5); }
extern "C" int _fltused = 0;
extern "C" int _DllMainCRTStartup(void *, u32, void *) { return 1; }
