"""BibTeX of the papers that cards cite, and the names of the rules that weigh tasks."""

METAMAE_BIBTEX = """
@inproceedings{jang2023metamae,
  title = {Modality-Agnostic Self-Supervised Learning with Meta-Learned Masked Auto-Encoder},
  author = {Jang, Huiwon and Tack, Jihoon and Choi, Daewon and Jeong, Jongheon and Shin, Jinwoo},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023},
  url = {https://arxiv.org/abs/2310.16318}
}
"""
MAE_BIBTEX = """
@inproceedings{he2022mae,
  title = {Masked Autoencoders Are Scalable Vision Learners},
  author = {He, Kaiming and Chen, Xinlei and Xie, Saining and Li, Yanghao and Doll{\\'a}r, Piotr and Girshick, Ross},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022},
  url = {https://arxiv.org/abs/2111.06377}
}
"""
DABS_BIBTEX = """
@inproceedings{tamkin2021dabs,
  title = {{DABS}: A Domain-Agnostic Benchmark for Self-Supervised Learning},
  author = {Tamkin, Alex and Liu, Vincent and Lu, Rongfei and Fein, Daniel and Schultz, Colin and Goodman, Noah},
  booktitle = {Advances in Neural Information Processing Systems, Datasets and Benchmarks Track},
  year = {2021},
  url = {https://arxiv.org/abs/2111.12062}
}
"""
DABS2_BIBTEX = """
@inproceedings{tamkin2022dabs,
  title = {{DABS} 2.0: Improved Datasets and Algorithms for Universal Self-Supervision},
  author = {Tamkin, A. and Banerjee, G. and Owda, M. and Liu, V. and Rammoorthy, S. and Goodman, N.},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2022},
  url = {https://github.com/alextamkin/dabs}
}
"""
SMA_BIBTEX = """
@inproceedings{xie2024sma,
  title = {Self-Guided Masked Autoencoders for Domain-Agnostic Self-Supervised Learning},
  author = {Xie, Johnathan and Lee, Yoonho and Chen, Annie S. and Finn, Chelsea},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  url = {https://arxiv.org/abs/2402.14789}
}
"""
PERCEIVER_IO_BIBTEX = """
@inproceedings{jaegle2022perceiver,
  title = {Perceiver {IO}: A General Architecture for Structured Inputs \\& Outputs},
  author = {Jaegle, Andrew and Borgeaud, Sebastian and Alayrac, Jean-Baptiste and Doersch, Carl and Ionescu, Catalin
    and Ding, David and Koppula, Skanda and Zoran, Daniel and Brock, Andrew and Shelhamer, Evan and H{\\'e}naff, Olivier
    and Botvinick, Matthew M. and Zisserman, Andrew and Vinyals, Oriol and Carreira, Jo{\\~a}o},
  booktitle = {International Conference on Learning Representations},
  year = {2022},
  url = {https://arxiv.org/abs/2107.14795}
}
"""
MULTIMAE_BIBTEX = """
@inproceedings{bachmann2022multimae,
  title = {{MultiMAE}: Multi-modal Multi-task Masked Autoencoders},
  author = {Bachmann, Roman and Mizrahi, David and Atanov, Andrei and Zamir, Amir},
  booktitle = {European Conference on Computer Vision},
  year = {2022},
  url = {https://arxiv.org/abs/2204.01678}
}
"""
MINIMAX_BIBTEX = """
@inproceedings{wang2023taskrobust,
  title = {Task-Robust Pre-Training for Worst-Case Downstream Adaptation},
  author = {Wang, Jianghui and Chen, Yang and Xie, Xingyu and Fang, Cong and Lin, Zhouchen},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023},
  url = {https://arxiv.org/abs/2306.12070}
}
"""
BERT_BIBTEX = """
@inproceedings{devlin2019bert,
  title = {{BERT}: Pre-training of Deep Bidirectional Transformers for Language Understanding},
  author = {Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina},
  booktitle = {Conference of the North {A}merican Chapter of the Association for Computational Linguistics},
  year = {2019},
  url = {https://arxiv.org/abs/1810.04805}
}
"""
UNCERTAINTY_BIBTEX = """
@inproceedings{kendall2018uncertainty,
  title = {Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics},
  author = {Kendall, Alex and Gal, Yarin and Cipolla, Roberto},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2018},
  url = {https://arxiv.org/abs/1705.07115}
}
"""
GRADNORM_BIBTEX = """
@inproceedings{chen2018gradnorm,
  title = {{GradNorm}: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks},
  author = {Chen, Zhao and Badrinarayanan, Vijay and Lee, Chen-Yu and Rabinovich, Andrew},
  booktitle = {International Conference on Machine Learning},
  year = {2018},
  url = {https://arxiv.org/abs/1711.02257}
}
"""
DWA_BIBTEX = """
@inproceedings{liu2019mtan,
  title = {End-to-End Multi-Task Learning with Attention},
  author = {Liu, Shikun and Johns, Edward and Davison, Andrew J.},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2019},
  url = {https://arxiv.org/abs/1803.10704}
}
"""

# Rules that weigh the losses of tasks, other than minimax: name -> its name on cards, and its paper.
BALANCERS = {
    "uncertainty": ("uncertainty weighting", UNCERTAINTY_BIBTEX),
    "gradnorm": ("GradNorm", GRADNORM_BIBTEX),
    "dwa": ("dynamic weight averaging", DWA_BIBTEX),
}
