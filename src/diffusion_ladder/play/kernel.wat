;; The matrix product C += A B of float32 matrices in row-major order, four rows and eight columns of C at a time:
;; these 32 sums stay in registers while the inner index runs. It is nearly all of a network's work.
(module
  (import "engine" "memory" (memory 1))

  (func (export "multiply")
    (param $A i32) (param $B i32) (param $C i32)  ;; addresses of (rows, inner), (inner, columns), (rows, columns)
    (param $rows i32)                             ;; a multiple of 4
    (param $inner i32)
    (param $columns i32)                          ;; a multiple of 8

    (local $row i32) (local $column i32) (local $k i32)
    (local $stride_A i32) (local $stride_C i32)   ;; bytes in a row of A, and in a row of B or C
    (local $a i32) (local $b i32) (local $c i32)  ;; addresses
    (local $b0 v128) (local $b1 v128) (local $x v128)
    (local $c00 v128) (local $c01 v128) (local $c10 v128) (local $c11 v128)
    (local $c20 v128) (local $c21 v128) (local $c30 v128) (local $c31 v128)

    (local.set $stride_A (i32.shl (local.get $inner) (i32.const 2)))
    (local.set $stride_C (i32.shl (local.get $columns) (i32.const 2)))
    (local.set $column (i32.const 0))
    (loop $next_columns
      (local.set $row (i32.const 0))
      (loop $next_rows
        (local.set $a (i32.add (local.get $A) (i32.mul (local.get $row) (local.get $stride_A))))
        (local.set $b (i32.add (local.get $B) (i32.shl (local.get $column) (i32.const 2))))
        (local.set $c (i32.add (i32.add (local.get $C) (i32.mul (local.get $row) (local.get $stride_C)))
                               (i32.shl (local.get $column) (i32.const 2))))
        (local.set $c00 (v128.load           (local.get $c)))
        (local.set $c01 (v128.load offset=16 (local.get $c)))
        (local.set $c   (i32.add (local.get $c) (local.get $stride_C)))
        (local.set $c10 (v128.load           (local.get $c)))
        (local.set $c11 (v128.load offset=16 (local.get $c)))
        (local.set $c   (i32.add (local.get $c) (local.get $stride_C)))
        (local.set $c20 (v128.load           (local.get $c)))
        (local.set $c21 (v128.load offset=16 (local.get $c)))
        (local.set $c   (i32.add (local.get $c) (local.get $stride_C)))
        (local.set $c30 (v128.load           (local.get $c)))
        (local.set $c31 (v128.load offset=16 (local.get $c)))

        (local.set $k (i32.const 0))
        (loop $next_k
          (local.set $b0 (v128.load           (local.get $b)))
          (local.set $b1 (v128.load offset=16 (local.get $b)))
          (local.set $x (v128.load32_splat (local.get $a)))
          (local.set $c00 (f32x4.add (local.get $c00) (f32x4.mul (local.get $x) (local.get $b0))))
          (local.set $c01 (f32x4.add (local.get $c01) (f32x4.mul (local.get $x) (local.get $b1))))
          (local.set $x (v128.load32_splat (i32.add (local.get $a) (local.get $stride_A))))
          (local.set $c10 (f32x4.add (local.get $c10) (f32x4.mul (local.get $x) (local.get $b0))))
          (local.set $c11 (f32x4.add (local.get $c11) (f32x4.mul (local.get $x) (local.get $b1))))
          (local.set $x (v128.load32_splat (i32.add (local.get $a) (i32.mul (local.get $stride_A) (i32.const 2)))))
          (local.set $c20 (f32x4.add (local.get $c20) (f32x4.mul (local.get $x) (local.get $b0))))
          (local.set $c21 (f32x4.add (local.get $c21) (f32x4.mul (local.get $x) (local.get $b1))))
          (local.set $x (v128.load32_splat (i32.add (local.get $a) (i32.mul (local.get $stride_A) (i32.const 3)))))
          (local.set $c30 (f32x4.add (local.get $c30) (f32x4.mul (local.get $x) (local.get $b0))))
          (local.set $c31 (f32x4.add (local.get $c31) (f32x4.mul (local.get $x) (local.get $b1))))
          (local.set $a (i32.add (local.get $a) (i32.const 4)))
          (local.set $b (i32.add (local.get $b) (local.get $stride_C)))
          (br_if $next_k (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 1))) (local.get $inner))))

        (v128.store           (local.get $c) (local.get $c30))
        (v128.store offset=16 (local.get $c) (local.get $c31))
        (local.set $c (i32.sub (local.get $c) (local.get $stride_C)))
        (v128.store           (local.get $c) (local.get $c20))
        (v128.store offset=16 (local.get $c) (local.get $c21))
        (local.set $c (i32.sub (local.get $c) (local.get $stride_C)))
        (v128.store           (local.get $c) (local.get $c10))
        (v128.store offset=16 (local.get $c) (local.get $c11))
        (local.set $c (i32.sub (local.get $c) (local.get $stride_C)))
        (v128.store           (local.get $c) (local.get $c00))
        (v128.store offset=16 (local.get $c) (local.get $c01))
        (br_if $next_rows (i32.lt_u (local.tee $row (i32.add (local.get $row) (i32.const 4))) (local.get $rows))))
      (br_if $next_columns
        (i32.lt_u (local.tee $column (i32.add (local.get $column) (i32.const 8))) (local.get $columns))))))
