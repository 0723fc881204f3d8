module devnetd.test/wrongd

go 1.19
