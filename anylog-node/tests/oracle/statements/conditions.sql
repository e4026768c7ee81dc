# WHERE.
select count(*) as n from readings where value > 100
select count(*) as n from readings where value >= 100 and value < 200
select count(*) as n from readings where value < -8000 or value > 990
select count(*) as n from readings where not value > 0
select count(*) as n from readings where not (value > 0 and level > 0)
select count(*) as n from readings where value is null
select count(*) as n from readings where value is not null and device is null
select count(*) as n from readings where value = 0
select count(*) as n from readings where value != 0
select count(*) as n from readings where value <> 0.5
select count(*) as n from readings where value = null
select count(*) as n from readings where ok
select count(*) as n from readings where not ok
select count(*) as n from readings where ok is true
select count(*) as n from readings where ok is false
select count(*) as n from readings where ok is not true
select count(*) as n from readings where ok is not false
select count(*) as n from readings where ok is null
select count(*) as n from readings where ok = true
select count(*) as n from readings where ok = false
select count(*) as n from readings where ok != true
select count(*) as n from readings where ok = 1
select count(*) as n from readings where ok is not null and level = 1
select count(*) as n from readings where device = ''
select count(*) as n from readings where device = 'it''s'
select count(*) as n from readings where device = 'say "hi"'
select count(*) as n from readings where device = 'ünïcödé-Ω'
select count(*) as n from readings where device = '日本のポンプ'
select count(*) as n from readings where device = '🚰 tap'
select count(*) as n from readings where device = 'a,b;c'
select count(*) as n from readings where device = 'back\slash'
select count(*) as n from readings where device = '50%_off'
select count(*) as n from readings where device = ' blank '
select count(*) as n from readings where device = 'PUMP-1'
select count(*) as n from readings where device > 'pump'
select count(*) as n from readings where device >= 'ü'
select count(*) as n from readings where device < 'a'
select count(*) as n from readings where device <> 'pump-1'
select count(*) as n from readings where device in ('pump-1', 'it''s', '日本のポンプ')
select count(*) as n from readings where device not in ('pump-1', 'pump-2')
select count(*) as n from readings where level in (1, 2, -3)
select count(*) as n from readings where level not in (1, 2, -3)
select count(*) as n from readings where value in (0, 1.5, -2.25, 100)
select count(*) as n from readings where value between -10 and 10
select count(*) as n from readings where value not between -10 and 10
select count(*) as n from readings where count between -5 and 5 and level between 0 and 3
select count(*) as n from readings where device between 'a' and 'q'
select count(*) as n from readings where device like 'pump%'
select count(*) as n from readings where device like '%-_'
select count(*) as n from readings where device like '%ö%'
select count(*) as n from readings where device not like 'pump%'
select count(*) as n from readings where device ilike 'PUMP%'
= select count(*) as n from readings where device like 'PUMP%'
select count(*) as n from readings where device like '50!%!_%' escape '!'
select count(*) as n from readings where device like '%''%'
select count(*) as n from readings where note like '%"ü"%'
select count(*) as n from readings where note like '{%'
select count(*) as n from readings where note = 'null'
select count(*) as n from readings where note = 'O''Brien said "no"'
select count(*) as n from readings where length(note) > 10
select count(*) as n from readings where lower(device) = 'pump-1'
select count(*) as n from readings where upper(device) = 'PUMP-2'
select count(*) as n from readings where substr(site, 6, 1) = '2'
select count(*) as n from readings where abs(value) < 3
select count(*) as n from readings where value + count > 0
select count(*) as n from readings where value > count
select count(*) as n from readings where value * 2 > level * 100
select count(*) as n from readings where count % 2 = 0
select count(*) as n from readings where count % 2 = 1 and count > 0
select count(*) as n from readings where big > 1000000000000
select count(*) as n from readings where big = 9007199254740993
select count(*) as n from readings where price > 100.5
select count(*) as n from readings where price = 12.25 or price = -100
select count(*) as n from readings where price between 0 and 99.99
select count(*) as n from readings where level = 1 or level = 2 and value > 0
select count(*) as n from readings where (level = 1 or level = 2) and value > 0
select count(*) as n from readings where ((level = 1) or ((level = 2) and (value > 0)))
select count(*) as n from readings where level = -4
select count(*) as n from readings where -level > 2
select count(*) as n from readings where level = 1 and not (device like 'p%' or device is null)
select count(*) as n from readings where case when level > 0 then value else count end > 10
select count(*) as n from readings where coalesce(value, 1) = 1
select count(*) as n from readings where value > 1e3 or value < -1.5e3
select count(*) as n from readings where timestamp >= '2024-01-01'
select count(*) as n from readings where timestamp >= '2024-01-01' and timestamp < '2025-01-01'
select count(*) as n from readings where timestamp > '2024-06-15T12:00:00Z'
= select count(*) as n from readings where timestamp > '2024-06-15 12:00:00.000000'
select count(*) as n from readings where timestamp > '2024-06-15 12:00:00'
= select count(*) as n from readings where timestamp > '2024-06-15 12:00:00.000000'
select count(*) as n from readings where timestamp <= '2024-06-15 12:00:00.5'
= select count(*) as n from readings where timestamp <= '2024-06-15 12:00:00.500000'
select count(*) as n from readings where timestamp = '2023-12-31 23:59:59.999999'
select count(*) as n from readings where timestamp = '2023-12-31T23:59:59.999999Z'
= select count(*) as n from readings where timestamp = '2023-12-31 23:59:59.999999'
select count(*) as n from readings where timestamp = '2024-01-01'
= select count(*) as n from readings where timestamp = '2024-01-01 00:00:00.000000'
select count(*) as n from readings where timestamp <> '2024-01-01'
= select count(*) as n from readings where timestamp <> '2024-01-01 00:00:00.000000'
select count(*) as n from readings where timestamp >= '2024-03-01T01:00:00+01:00' and timestamp < '2024-03-01T00:00:01Z'
= select count(*) as n from readings where timestamp >= '2024-03-01 00:00:00.000000' and timestamp < '2024-03-01 00:00:01.000000'
select count(*) as n from readings where timestamp between '2024-02-29' and '2024-03-01'
= select count(*) as n from readings where timestamp between '2024-02-29 00:00:00.000000' and '2024-03-01 00:00:00.000000'
select count(*) as n from readings where timestamp in ('2024-01-01T00:00:00Z', '2024-02-29 23:59:59.6')
= select count(*) as n from readings where timestamp in ('2024-01-01 00:00:00.000000', '2024-02-29 23:59:59.600000')
select count(*) as n from readings where '2024-01-01' <= timestamp and '2024-01-02' > timestamp
= select count(*) as n from readings where timestamp >= '2024-01-01' and timestamp < '2024-01-02'
select count(*) as n from readings where not timestamp < '2025-01-01'
= select count(*) as n from readings where timestamp >= '2025-01-01'
select count(*) as n from readings where timestamp < '2023-01-01'
select count(*) as n from readings where event > '2024-06-01' and timestamp > '2024-06-01'
select count(*) as n from readings where event > timestamp
select count(*) as n from readings where event is null and timestamp < '2024-01-01'
select count(*) as n from readings where timestamp < '2023-02-01' or timestamp > '2026-01-01'
select count(*) as n from readings where timestamp >= '2024-02-01' and device = 'pump-1' and value > 0 and ok
select count(*) as n from readings where timestamp >= '2024-01-01' + 30 days and timestamp < '2024-01-01' + 2 months
= select count(*) as n from readings where timestamp >= '2024-01-31' and timestamp < '2024-03-01'
select count(*) as n from readings where timestamp < timestamp('2024-05-05T10:00:00Z')
= select count(*) as n from readings where timestamp < '2024-05-05 10:00:00.000000'
select count(*) as n from readings where timestamp < date('2024-05-05')
= select count(*) as n from readings where timestamp < '2024-05-05 00:00:00.000000'
select count(*) as n from readings where timestamp < timestamp '2024-05-05'
= select count(*) as n from readings where timestamp < '2024-05-05 00:00:00.000000'
select big, timestamp from readings where timestamp >= '2025-06-15 10:00:00' and timestamp < '2025-06-15 10:10:00' order by timestamp, big
= select big, timestamp from readings where timestamp >= '2025-06-15 10:00:00.000000' and timestamp < '2025-06-15 10:10:00.000000' order by timestamp, big
select device, big from readings where device = 'no such device'
select * from readings where value > 1e300
select * from readings where 1 = 0
select * from readings where timestamp > '2030-01-01'
select device, max(value) as m from readings where 1 = 0 group by device
