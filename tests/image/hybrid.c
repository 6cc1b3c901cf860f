int counter;

__attribute__((dllexport)) int scale(int value, int by) { return value * 3 + by; }
__attribute__((dllexport)) int count(int by) { return counter = scale(by, counter); }
