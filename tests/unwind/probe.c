/* Prologues and epilogues of every kind that a C compiler makes: large frames, alloca, homes, floats, tail calls, early returns. */

typedef unsigned long long u64; typedef __builtin_va_list va_list;
#define X __declspec(dllexport) __declspec(noinline)
volatile u64 sink;
int _fltused;
__attribute__((naked)) void __chkstk(void){ __asm__("ret"); } /* the whole stack is mapped */
X u64 leaf(u64 a){ return a*3+1; }
X u64 one(u64 a){ return leaf(a)+leaf(a+1); }
X u64 many(u64 a,u64 b,u64 c,u64 d,u64 e,u64 f,u64 g,u64 h,u64 i,u64 j){ u64 r=leaf(a)^leaf(b); r+=leaf(c)*leaf(d); r^=leaf(e)+leaf(f)*leaf(g); r+=leaf(h)*i+leaf(j); return r+a+b*c+d*e+f+g+h+i*j; }
X double flt(u64 n){ double a=1,b=2,c=3,d=4,e=5,f=6; for(u64 k=0;k<n;k++){ a+=b*(double)leaf(k); b+=c; c+=d*(double)leaf(k+1); d+=e; e+=f; f+=a; } return a+b+c+d+e+f; }
X u64 two_floats(u64 n){ double a=n,b=1; for(u64 k=0;k<3;k++){ a+=(double)leaf(k)*b; b+=a; } return (u64)(a+b); }
X u64 big(u64 n){ volatile char buf[9000]; for(u64 k=0;k<5;k++) buf[k*1000]=(char)leaf(k+n); return buf[1000]+buf[2000]; }
X u64 middle(u64 n){ volatile char buf[1500]; for(u64 k=0;k<3;k++) buf[k*500]=(char)leaf(k+n); return buf[500]; }
X u64 huge(u64 n){ volatile char buf[300000]; buf[n]=(char)leaf(n); return buf[n]; }
X u64 dyn(u64 n){ volatile char*p=__builtin_alloca(n*16+32); p[0]=(char)leaf(n); p[n]=(char)one(n); return p[0]+p[n]; }
X u64 dynmany(u64 n,u64 b,u64 c,u64 d){ volatile char*p=__builtin_alloca(n*16+32); p[0]=(char)leaf(n); p[n]=(char)many(n,b,c,d,b,c,d,1,2,3); return p[0]+p[n]+b*c+d; }
X u64 sum(int n,...){ va_list v; __builtin_va_start(v,n); u64 s=0; for(int k=0;k<n;k++) s+=leaf(__builtin_va_arg(v,u64)); __builtin_va_end(v); return s; }
X u64 callsum(u64 a){ return sum(5,a,a+1,a+2,a+3,a+4); }
X u64 tail(u64 a){ sink=a; return one(a+7); }
typedef u64(*fp)(u64); fp volatile table[3]={leaf,one,tail};
X u64 indirect(u64 a){ u64 r=table[a%3](a); return table[(a+1)%3](r)+1; }
X u64 tailindirect(u64 a){ sink=leaf(a); return table[a%3](a); }
X u64 early(u64 a,u64 b){ if(a<5) return b; u64 r=0; for(u64 k=0;k<a%4+1;k++) r+=many(a,b,k,1,2,3,4,5,6,7)*b; return r; }
X u64 early2(u64 a,u64 b){ if(a<5) return b; if(leaf(a)&1) return one(b); return early(a,leaf(b)); }
X u64 rec(u64 n){ return n<2?n:rec(n-1)+rec(n-2)*3; }
X u64 sw(u64 a,u64 b){ switch(a){case 0:return leaf(b);case 1:return one(b)+1;case 2:return b*7;case 3:return many(b,1,2,3,4,5,6,7,8,9);case 4: return tail(b);case 5: return b^0x1234;case 6:return dyn(b&7);} return 0; }
X u64 run(u64 n){ u64 r=leaf(n)+one(n)+many(n,1,2,3,4,5,6,7,8,9)+(u64)flt(n&3)+two_floats(n)+big(n)+middle(n)+huge(n)+dyn(n)+dynmany(n,1,2,3)+callsum(n)+tail(n)+indirect(n)+tailindirect(n)+tailindirect(n+1)+early(n,1)+early(n+9,2)+early2(n+8,1)+early2(n+9,2)+rec(5); for(u64 k=0;k<8;k++) r+=sw(k,n); return r; }
X int _DllMainCRTStartup(void*a,unsigned b,void*c){return 1;}
