"""The H5 that DeepLabCut writes: tables of made-up numbers that pandas 2.2.3 wrote with PyTables, and damaged ones."""

from __future__ import annotations

import base64
import lzma
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus import jpeg

from livestock.config import Competition, Keypoint, Skeleton
from livestock.data import readers
from livestock.data.readers import clean, points
from livestock.exceptions import BadData

# `df.to_hdf(path, key="df_with_missing", mode="w")` with the picture in one column and in three, and format="table";
# two pictures, the tail and the snout, of which the second picture has no tail.
TABLES = {
    "paths": """
{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;4+s4Ph9{+k_3crdV6<D#AZ)w9S?G89vI9Y7}C_L=Uw!S;O|S%=gEnc^i^@Cvwm#>i2)A-
MWc6mvW$vrq1Uuh%*v|g5oZj?=%Ff<$NflofG+XeNx*4O6YWlc6|XsjVZB*<4A(%MdBJ8w<jUQwXH@Q-
y<vt@2vG>XcEEnuRWzX$`q?>t)HH6Y?k8wKbN$;lN!e+O0Oh!PVbz=DVxf3j%-EILV`c;1;pFdaMa?u{5d>~2<Nt=<tn#s(aUnT^4JK9b2=kvA^QN-
9WRII*xRT7<-zbeS{GpeX)*?<=riamN+0K+!ySKOP@?pVBSV@ddDA6Pe4Pj@#1t$}k?weZ2KbY|0FgQ_V!#9l1PEJWQGfp!7qdePl-
t<hEj0ya~#rc`!+sFOyy8eb0zn_{RF5msEE;f4s)YxZK$iKL%pPq#=<D8=dJAoA}2@gAUY>OA3<?U=plJHZwfli}Vq4}tFDClU&Y*}w;Z>$1LubJ`wK5
(JO`C5B%Fa;X!p>K4yFsKF96u6>z4}z#kuGtl1)m3m?N+(GR{T)|m3nDmYM5~@+j0F=fu=Ac75_X_4t@WLCFuK;t5}q!BFjT+JnI2V%4zZk*CwCl?!#`
z`To#O-
reF*?h)5){K1HCA^D#xI7L}GwUa3o2Qza}QP5U{RJAW+<5e;;16Z+u`xiNJGnGT_<V+9Z$Vxs3oW{g*=PL)slP&in*mviIcTL?j^mez&FEJOHrXi*!0S
eivsJI$dc@3B0oKe9^53kraUx)Yt<nSe9Dfk{Ztwx4k5d(Fk>h|vu(NO##6+WpmGTp{4Oe@rg6;>Xf%K}XXxEar@yJ|rOa?50oH{z0Xgw;y&XWS6c^nw
9Xj-#@t^Wi-SmHDy%8Xm(sni@d?5^!H<~nO~h6Ks~1SQKi+7Hx|R`1}5cuzyzeIc9dKY6+SPl1RR^1RLx$Es_Kb-
&PhEEc6`|yn0r}{7U({J^Kv*hIJ!8j6)(8{8;r<q94m|oekhz2a}--
V^<Cnk+_y^<ymq~>5NFw0e2kfzFlF;+d&!o7&Vye<+wh~2toD=}sWKQ9*f{r{vll4!nallsjd9W5i7&n`+S^{2bSbOXAZ6q19U2D!>IYrv!*s@y+`%!A
rTjf%MC!J*qSG%0)1)wj@qTS~wZClIvQ~TogWU?58o7=Mo8qfwL__v^g_(05r-
}|*9F60>DBvm6HU`Vbjt!He9#XgBe&vmgm?RXn_D+fwOU!^`039)~KaSP#otme~4Si3Z2Tz2SBc6(V4nBAO&-
F%I8Is5>VG2pGKYU~r?YyKgsAwE12?`dKv3YX)YDeQJ<)K;d!~!YpN#+W46$D3Dzoa*n1@^CPKCy}iYDr-
m0_u<4qeIaFZAU?+5kAn`L!k_+Heu&7_v!4465=$|Miy;~vC7o}`3+yE^yhAR<`@6~7NArm(}o6j00HX=m}LL}-Ly`*vBYQl0ssI200dcD""",
    "parts": """
{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;6FbEz+C`Dk_3crdV6<D#AZ)w9S?G89vI9X{8Q(_*L`}o28lGi;&o^z(U(w$tl1qD#vV2XuJI1Sct;z;dpwxiJ
~l^|VbS0q9>vC!9&ec>73BuQAq*vLj-zo?I0y(2pm75^1qX6R+=}_2-
)xw@NU3+up*T&lgmEAlCi<x~r3z#4hE(B+sP3bH8DRQPD;7WbXY+Qd$5GCCNg?H}S$JPE$NnL=jju>YjFf_@&fTuX@+2lQ#*N<G;NExG<)hel<9eVkFs
6MbNhY5L_OkU(&#RwS*k}gc&IcBXD>F8|DkE#6>UAlei>bt8l&JsE3+@DcurrY}kY%c=NU7Jz_)1UYsTXu^^AEYh3?0TJF;}1^(Y91IWqS*rA^$Eap#Q
qSF<byg93lfFUAChyI&gefL(0!xnwN0Hpj$6)(_DLEK#6<R&!}B!!_wF9%3AE&YaS(xLe?O^yEnaE=_f&>duA^-
MzNwVF#(0`zMLVquHF4=^CO%f3q%Hrnw14%^hW%JTayW8_o$DDnf3o6nzEn0ChT)64j5TFm5~M%8b_Lp1)HA;NN8VgItzxrL!+cs7YsEO8)_tT!-
3HTo!sP<%EA2Rj4a9*h&^WOemHs2ZmZpo@{y*on7bdE-N<(mN|il)Y1xv8py(1OVC<Buo~L8|mG=$>xH$T*%={Rn7i777y7iAZHU-Z91-
8MU$hoR>P!+nuo3nAdR$paj*XeSLK+}v?fN^208%224KH1u(<OP_L@HcDj9_R{J&XFR@7F&yD^rrx{O&t#<J*A(95eHhF#i6#ee9yDy){b(}kbnf)%en
~#yIpNsX32X2$6YuUl#-(~06*(?1MB-XQ(4gmX9Mhfe0>(KsfP^A#ZtDuTbr!x;*w2rDfSt3nX$-C->d%U@pV&1XmXeCl^QcOj=3iwn_4O-
JSa;)2jZq-e(D_{l?ZxRu-<5D7%BGn-r4-ANpM@tFbRiYRhq(MyjRuvXVI0kgK027xg1Ju6+5-D%?Yr-9>(kqFsgJ-
^?%F^o5b`#2n{L8{3p|*UZm|=pJm>y?9*`<^=Sxu;Qyc$q-
_n#A9=fhiJBFM0r4U1N7!X1vlC2*kFdY)K)KYd1^=$|@f>G{Y2#yeK;HzXgc6eQ(Z5w#Z7F*AV1{DjW4)iYB0_pe`iPma<{aRn%^gN>MyOSyE9o5>PFm
D%60mEjhjlnjY+KMPm{rh%%%jU!ix0xC%zbLeGU(GQ%P8l~paMjUlEH<|?JD@~Je1|Hl`bq0ETZy(uy8q>8*9JLUcXx1iW8@r;p5?Np!JH<Xh7hU8*ky
!$mZFs5sFx1l=VW^UgAWYP)f<jqH>C&boMPD4_OAh<a+0B&D4Y3%E4kA;~Xi4yUX>FZneh?Ykpue@=}3Lc2Xs$lq4&zDcTUEajr$gS$`M7!M-
X((pNolVCU~K8rEx%#Idz;=i^=<zwl`)R<7Lq6D&`Vh=KMR;B6gpn7Hx&-
|wr|{ux?%^Q!38u@9Yo`;iHTxE)6p?35~PUHuUBhlZf@J+SRdUa$TcGeX?7Lv!L!<<V5>ry;|GY!+%pmDPG%RPy*?-iiPKi3-
6LW~Z?B00G<yz<vM#q`{kmvBYQl0ssI200dcD""",
    "table": """
{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;TgaL4_yF6k_3crdV6<D#AZ)w9S?G89vI9YCKl9om#8^V`e~Cjsq%ngr$X^QPR8u{{SA?IuVQ;CNCPep2@iFfI
4-*^73lV$y?$EDOq7ubrrwW84Tc+a?)R2W-d~BjW=|S@I)HIBD+vpGI{I@>m}caP+hv*oC<6PsiHLfnb)-
8;Gr{v!37Mz(H88x_jiMM_Rf=e>HV7xLk!O}`@h;SHeVG7jc7VLrjQ~2Tekzvyk_E7Gy5uW(-(;#XF;Lw`;750j{s<+T-=2-huTO?myVVg|#-
J6C3vA(yJH8H_8WPVFM;+r$^Rh>hfHLz;l(#2}{&d2Y$H3g)EM>>A?_0m-;6tw{&Au{DqAL}-L`E(mDi)32OWdxVG)^}T{mkWN-
b((Ew|x9QIZ{V+eIB&{+Ln#y&~KJRrgxF@ZITQT_-
|7&xFQnwxyMf|UMN&DP$19}F;aoOq3?nGmIAEV>YyFNpoA*9y@>oC1)q6RdyrEvWnzw5?n@7KQKP9)%MX3;@d1wIYAqW8aZSpp5r|)i9p8P0%Ey1@>no
_M2V{p`Uh85`FmUJCyr#%)@&Z!|YZio74A1&G<K&-
ZX@(_`6|iNH6PXl@s43Ka`X#`^;phGW?;)bVkm&A;gzcYILYwM+AY5Ld6J(kKrF^R~0_UepLqz23FHGHeTR+uLNH4lGGt_p^>D<MTDvV}}i0=}N^-
jn(bsJ$~B3DEKGsBofphf$Tv;kr$zK0~pV?YW~2In>x;a<6kRU}}qIZ~2<WFrdK5-
`N=Wh^txgb?Bo7A4|$8(1NMQD(YTEh~k_*_zJUvHp!XP?k(8O8d3?`N~r41VDke9txP?^}nhk8~cU}-Nk1p%qkVEe)%%deY&Kcj9sE*@~-
ijr_;JDxW>#aDHw+mE=L(Fj01z&kHAY$N|)jCwrBN3EFwnE?_=9w$uGm+q+<&Ocxv{Z^9cMfgq-?=Ph-
(>5ZVp^q}6G8`L)1MJaW;9yvjpR;utof#IF@SujTUqk*ncRF_j~bug6Pn_qMuIZwM^?8^BDN8V~?x7pJE_W>GM{@zZ29wXKl|qYIIV4cMNMY-JIt45qV
o;(zauVkPQxKCdDnaEXk09yp?Z6V3q_4sa7+{Epg#)^}>di|apifMJng&*{SN!S6ku0*Yl6&?YbxQ();Z;t|Kh5*P~HLDJ1yZIa74uY_vGGHy`K5B)G$
iO-sC*GhL}X#1yoam@05s^eivPGEoe-8jb=ncR>z{!^@?;63$Qk{(IQeYZ=gpcIU(CsrnfJw4oD3p$udSuY^wOaBC0IM?tPj-
6>OWB$ONKjGoNk6)@lT(el?d|VHZu3@r{ZT@OYiU0rrTO1@ANW8|R00FBA!LtMaA98!`vBYQl0ssI200dcD""",
}
PIG = Competition("t", {"pig": []}, skeleton=Skeleton((Keypoint("pig", "snout", 0), Keypoint("pig", "tail", 1))))
CSV = "scorer,m,m,m,m\nbodyparts,snout,snout,tail,tail\ncoords,x,y,x,y\nlabeled-data/x/img1.png,1,2,3,4\n"


def write(folder: Path, content: bytes) -> Path:
    """Two pictures and their table; the path of the table."""
    frames = folder / "labeled-data/x"
    frames.mkdir(parents=True)
    for number in (1, 2):
        (frames / f"img{number}.png").write_bytes(jpeg())
    (frames / "CollectedData_me.h5").write_bytes(content)
    return frames / "CollectedData_me.h5"


def unpack(name: str) -> bytes:
    return lzma.decompress(base64.b85decode(TABLES[name].replace("\n", "")))


@pytest.mark.parametrize("name", ["paths", "parts"])
def test_the_table_of_pandas_fixed_format_is_read(name: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="no h5py: pip install h5py")
    write(tmp_path, unpack(name))
    found = readers.read_data_set("auto", tmp_path, PIG)
    assert found.reader == "dlc"
    table = found.train.keypoints[["image_id", "keypoint", "x", "y", "visible"]].fillna(-1).to_numpy().tolist()
    first, second = "labeled-data/x/img1.png", "labeled-data/x/img2.png"
    assert table == [[first, "snout", 10.5, 12.75, 2], [first, "tail", 3.5, 4.75, 2],
                     [second, "snout", 0.5, 1, 2], [second, "tail", -1, -1, 0]]
    assert found.train.left_out.empty


@pytest.mark.bad_input
def test_a_table_whose_names_are_pickled_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="no h5py: pip install h5py")
    write(tmp_path, unpack("table"))
    with pytest.raises(BadData, match=r"_me\.h5: expected a table .*'frame_table', whose names are pickled"):
        readers.read("dlc", tmp_path, PIG)


@pytest.mark.bad_input
def test_a_damaged_table_is_refused_or_read(tmp_path: Path) -> None:
    """Bytes are replaced anywhere: nothing but a reading or a BadData that names the file comes of it."""
    pytest.importorskip("h5py", reason="no h5py: pip install h5py")
    n_refused, path = 0, write(tmp_path, b"")
    for seed in range(60):
        rng, content = np.random.default_rng(seed), bytearray(unpack(["paths", "parts"][seed % 2]))
        places = np.flatnonzero(np.frombuffer(bytes(content), np.uint8))  # most of the file are zeros
        for place in rng.choice(places, 4):
            content[place] = rng.integers(256)
        path.write_bytes(content[: len(content) // 2] if seed % 10 == 0 else content)
        try:
            readers.read("dlc", tmp_path, PIG)
        except BadData as error:
            assert str(tmp_path) in str(error)
            n_refused += 1
    assert 6 <= n_refused < 60


@pytest.mark.bad_input
def test_without_h5py_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    write(tmp_path, b"")
    with pytest.raises(BadData, match=r"CollectedData_me\.h5: .*pip install h5py, or use the CSV .* beside it"):
        readers.read("dlc", tmp_path, PIG)


def test_a_csv_beside_it_is_read_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    write(tmp_path, b"").with_suffix(".csv").write_text(CSV)
    reading = readers.read("auto", tmp_path, PIG)
    assert len(reading.boxes) == 1
    assert sorted(reading.left_out["reason"]) == sorted([points.CSV_BESIDE, clean.NO_LABEL])
